// The message of the Error that a piece of code throws, for tests that check what it names.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"

namespace mambify::testing {

template <typename Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no Error was thrown";
}

}  // namespace mambify::testing

// The statement throws an Error whose message holds every one of the texts after it.
#define EXPECT_ERROR(statement, ...) \
  EXPECT_THAT(::mambify::testing::error_of([&] { statement; }), ::testing::AllOf(__VA_ARGS__))
