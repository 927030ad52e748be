"""Compares `mambify tokenize` with Hugging Face tokenizers, token for token.

    python tests/peers/check_tokenizer.py BUILD/mambify BUILD/tests/peers/save_tokenizer TEACHER.gguf

Needs a Python with tokenizers and gguf; both programs are build targets. The text, several MB, is made here and is the same in every
run: every code point between letters, digits and punctuation, random ones, kinds of white space,
emoji sequences, control characters, this repository's sources and Python's own. The
teacher's tokenizer is built from the GGUF file by gguf-py and tokenizers, and read a second time
from what mambify saves; the Llama-3 fixture is read from its tokenizer.json.
Ends with 1 when an id or a decoded text differs.
"""

import json
import pathlib
import random
import subprocess
import sys
import sysconfig
import tempfile
import time

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests/fixtures/llama3-style-tokenizer"

SPACES = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028" \
         "\u2029\u202f\u205f\u2060\u3000\ufeff"
PHRASES = """The quick brown fox|Größenwahn naïve façade|Быстрая коричневая лиса|Η γρήγορη αλεπού
|השועל החום המהיר|الثعلب البني السريع|तेज़ भूरी लोमड़ी|দ্রুত বাদামী শিয়াল|เร็วสีน้ำตาลสุนัขจิ้งจอก|快速的棕色狐狸
|素早い茶色の狐カタカナ|빠른 갈색 여우|մոխրագույն աղվես|სწრაფი ყავისფერი მელა|ፈጣን ቡናማ ቀበሮ|ཝ་སྨུག་པོ་|Ⅳ ½ ² ٣ ४ ๕ 𝟘 𝔘𝔫𝔦
|👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ❤️|e\u0301a\u0308\u0323 Z\u0351\u036b\u0343\u036a\u0302|don't WE'RE i'm you'LL he'd it'\u017f
|x+=1; y != z && (a[i]->b) /* c */ // d|https://example.org/a?b=c&d=%20#e|3.14159e-10 0xFFEE 1,000,000 2026-11-22
|<|im_start|>user|<|im_end|>|<|eot_id|>|<|begin_of_text|>|<|endoftext|>|<repo_name>|<|im_|start|>"""


def sweep_texts():
    """Every code point that is likely to be assigned, and some others, next to every kind."""
    points = [*range(0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200),
              *range(0x33480, 0x110000, 97)]
    for start in range(0, len(points), 64):
        yield "".join(f"the{c}the 12{c}12 {c} !{c}!\n{c}'{c}\n{c}{c}{c}"
                      for c in map(chr, points[start:start + 64]))


def random_texts(count):
    source = random.Random(2408)
    blocks = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0xE00),
              (0xE00, 0x1200), (0x1E00, 0x2C00), (0x3000, 0x3200), (0x4E00, 0xA000),
              (0xAC00, 0xD7B0), (0xFB00, 0x10000), (0x1D400, 0x1D800), (0x1F300, 0x1FB00),
              (0xE000, 0xE100), (0x10000, 0x11000), (0xE0000, 0xE0080)]
    phrases = PHRASES.replace("\n", "").split("|")
    for _ in range(count):
        parts = []
        for _ in range(source.randrange(1, 40)):
            kind = source.random()
            if kind < 0.3:
                parts.append(source.choice(phrases))
            elif kind < 0.5:
                parts.append("".join(source.choices(SPACES, k=source.randrange(1, 6))))
            elif kind < 0.6:
                parts.append(source.choice("aZ0 \n.é中") * source.randrange(1, 200))
            else:
                low, high = source.choice(blocks)
                parts.append("".join(chr(source.randrange(low, high))
                                     for _ in range(source.randrange(1, 12))))
            if source.random() < 0.4:
                parts.append(" ")
        yield "".join(parts)


def source_texts():
    """This repository and 80 modules of Python's library, as whole documents."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    files = [*sorted(ROOT.glob("src/**/*.*")), *sorted(ROOT.glob("docs/*.md")),
             *sorted(library.glob("*.py"))[:80]]
    for path in files:
        yield path.read_text(encoding="utf-8", errors="replace")


def tokenizer_from_gguf(path):
    """The teacher's tokenizer, built without mambify: SmolLM's digits and GPT-2's expression."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)
                                  for token, kind in zip(tokens, types) if kind == control])
    return tokenizer


def ours(program, model, texts):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        file.flush()
        start = time.monotonic()
        output = subprocess.run([program, "tokenize", "--model", model, "--jsonl", file.name],
                                check=True, capture_output=True).stdout
        seconds = time.monotonic() - start
    return [json.loads(line) for line in output.split(b"\n")[:-1]], seconds


def compare(title, lines, theirs, texts):
    wrong = []
    for start in range(0, len(texts), 2000):
        batch = texts[start:start + 2000]
        encoded = theirs.encode_batch(batch, add_special_tokens=False)
        ids = [entry.ids for entry in encoded]
        decoded = theirs.decode_batch(ids, skip_special_tokens=False)
        for text, line, id_list, back in zip(batch, lines[start:start + 2000], ids, decoded):
            if line["ids"] != id_list or line["decoded"] != back:
                wrong.append((text, line, id_list, back))
    tokens = sum(len(line["ids"]) for line in lines)
    print(f"{title}: {len(texts)} texts, {tokens} tokens, {len(wrong)} texts differ", flush=True)
    for text, line, id_list, back in wrong[:3]:
        at = next((i for i, (a, b) in enumerate(zip(line["ids"], id_list)) if a != b), 0)
        print(f"  {text[:60]!r}: at token {at} {line['ids'][at:at + 8]} "
              f"against {id_list[at:at + 8]}; decoded {'equal' if line['decoded'] == back else 'differs'}")
    return len(wrong) + abs(len(lines) - len(texts))


def main():
    program, save_tokenizer, teacher = sys.argv[1:4]
    texts = [*sweep_texts(), *random_texts(3000), *source_texts(), *list(SPACES), ""]
    size = sum(len(text.encode()) for text in texts)
    wrong = 0

    lines, seconds = ours(program, teacher, texts)
    print(f"{len(texts)} texts of {size / 1e6:.1f} MB: mambify takes {seconds:.1f} s in all")
    wrong += compare("teacher, built by tokenizers", lines, tokenizer_from_gguf(teacher), texts)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([save_tokenizer, teacher, folder], check=True)
        saved = Tokenizer.from_file(f"{folder}/tokenizer.json")
        wrong += compare("teacher, as mambify saves it", lines, saved, texts)
        again, _ = ours(program, folder, texts)
        wrong += sum(a != b for a, b in zip(lines, again))

    lines, _ = ours(program, FIXTURE, texts)
    fixture = Tokenizer.from_file(str(FIXTURE / "tokenizer.json"))
    wrong += compare("llama3-style fixture", lines, fixture, texts)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
