// policy.h - a syscall policy as compiled in. Part of: sandbox (any daemon). The tables come from sandbox/*.policy
// through compile_policy.py; nothing is parsed at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sandbox/sandbox.h"

namespace sallyport::sandbox {

enum class Action : uint8_t { Allow, Kill, Errno };

// Holds if (argument & mask) == value, in all 64 bits: what the kernel would cut off does not slip through.
struct Condition {
  uint8_t argument = 0;
  bool ownPid = false;  // value is this process's id, known only when the filter is loaded
  uint64_t mask = ~uint64_t{0};
  uint64_t value = 0;
};

inline constexpr size_t MAX_CONDITIONS = 3;

// Rules of one syscall are alternatives; the conditions of one rule must hold together.
struct Rule {
  int syscall = 0;  // a pseudo number (negative) where this architecture doesn't have it
  Action action = Action::Allow;
  int errorNumber = 0;  // for Errno
  uint8_t conditionCount = 0;
  Condition conditions[MAX_CONDITIONS] = {};
};

struct Policy {
  Action defaultAction = Action::Kill;
  int defaultErrorNumber = 0;
  std::span<const Rule> rules;
};

const Policy& policyOf(Profile profile);
// What a sanitizer's run-time needs on top; used by sanitizer builds alone.
const Policy& sanitizerPolicy();

}  // namespace sallyport::sandbox
