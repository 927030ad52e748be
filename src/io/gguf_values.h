// Values of GGUF's metadata.
#pragma once

#include <string>

#include "io/byte_cursor.h"
#include "io/gguf.h"

namespace mambify {

// A value with its type in front. Throws Error for unknown types, arrays of arrays, and integers
// above int64_t. what: the key, for messages.
GgufValue read_gguf_value(ByteCursor& cursor, const std::string& what);

// An unsigned 64-bit number that int64_t can hold.
int64_t read_gguf_u64(ByteCursor& cursor, const std::string& what);

}  // namespace mambify
