#include "data/read_ahead.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"

namespace mambify {
namespace {

// Numbers from the position on; there are none from the end on. Tells what it was asked.
class Numbers : public BatchStream {
 public:
  Numbers(int64_t end, std::vector<int64_t>& asked) : end_(end), asked_(asked) {}

  Batch batch(int64_t position, int64_t tokens) override {
    asked_.push_back(position);
    if (position >= end_) throw Error("no number {}", position);
    Batch made;
    for (int64_t i = 0; i < tokens; ++i) made.ids.push_back(position + i);
    made.next = position + tokens;
    return made;
  }

 private:
  int64_t end_;
  std::vector<int64_t>& asked_;
};

TEST(ReadAheadStream, GivesTheBatchesOfItsSourceAndAsksForEachOnce) {
  std::vector<int64_t> asked;
  {
    ReadAheadStream stream(std::make_unique<Numbers>(100, asked));
    EXPECT_EQ(stream.batch(4, 2).ids, (std::vector<int64_t>{4, 5}));
    EXPECT_EQ(stream.batch(6, 2).ids, (std::vector<int64_t>{6, 7}));
    EXPECT_EQ(stream.batch(8, 2).ids, (std::vector<int64_t>{8, 9}));
  }
  EXPECT_EQ(asked, (std::vector<int64_t>{4, 6, 8, 10}));
}

TEST(ReadAheadStream, GivesWhatIsAskedForWhereItWasNotPrepared) {
  std::vector<int64_t> asked;
  ReadAheadStream stream(std::make_unique<Numbers>(100, asked));
  EXPECT_EQ(stream.batch(0, 2).ids, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(stream.batch(50, 2).ids, (std::vector<int64_t>{50, 51}));      // elsewhere
  EXPECT_EQ(stream.batch(52, 3).ids, (std::vector<int64_t>{52, 53, 54}));  // another length
}

TEST(ReadAheadStream, ThrowsForTheBatchThatIsAskedFor) {
  std::vector<int64_t> asked;
  ReadAheadStream stream(std::make_unique<Numbers>(4, asked));
  stream.batch(0, 4);
  EXPECT_THROW(stream.batch(4, 4), Error);
  EXPECT_EQ(stream.batch(0, 4).next, 4);
}

}  // namespace
}  // namespace mambify
