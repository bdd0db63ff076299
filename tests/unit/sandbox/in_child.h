// in_child.h - locking down can't be undone, so each test does it in a child. Part of: tests.
#pragma once

#include <fcntl.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "sandbox/sandbox.h"

namespace sallyport::sandbox {

struct ChildEnd {
  int status = 0;    // of waitpid
  std::string text;  // what the work returned
};

// Runs `work` in a child and brings its text back. exit_group without destructors: they may need what was given up.
inline ChildEnd inChild(const std::function<std::string()>& work) {
  int channel[2];
  if (pipe2(channel, O_CLOEXEC) != 0) return {.status = -1, .text = "pipe2"};
  const pid_t child = fork();
  if (child == 0) {
    close(channel[0]);
    const std::string text = work();
    if (write(channel[1], text.data(), text.size()) < 0) _exit(2);
    _exit(0);
  }
  close(channel[1]);
  ChildEnd end;
  char buffer[4096];
  for (ssize_t got; (got = read(channel[0], buffer, sizeof buffer)) > 0;)
    end.text.append(buffer, static_cast<size_t>(got));
  close(channel[0]);
  waitpid(child, &end.status, 0);
  return end;
}

inline Options optionsFor(Profile profile, SandboxRequirement requirement = SandboxRequirement::Full) {
  Options options;
  options.profile = profile;
  options.requirement = requirement;
  return options;
}

// "full" or "degraded" and the like, or "refused: why".
inline std::string outcomeOf(const Result<Report, Refusal>& result) {
  return result ? std::string(name(result->verdict())) : "refused: " + result.error().message;
}

// The kernel as it could be elsewhere: `call` (with this first argument, if one is given) answers `errorNumber`.
struct Answer {
  int call;
  int errorNumber;
  std::optional<uint64_t> firstArgument = {};
};

inline void pretend(std::initializer_list<Answer> answers) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  for (const Answer& answer : answers) {
    scmp_arg_cmp first{.arg = 0, .op = SCMP_CMP_EQ, .datum_a = answer.firstArgument.value_or(0), .datum_b = 0};
    const uint32_t action = SCMP_ACT_ERRNO(static_cast<uint32_t>(answer.errorNumber));
    if (seccomp_rule_add_array(filter, action, answer.call, answer.firstArgument ? 1 : 0, &first) != 0) _exit(3);
  }
  if (seccomp_load(filter) != 0) _exit(3);
  seccomp_release(filter);
}

// No namespaces and no chroot, as in a container without capabilities.
inline void pretendContainer() {
  pretend({{SCMP_SYS(unshare), EPERM}, {SCMP_SYS(mount), EPERM}, {SCMP_SYS(chroot), EPERM}});
}

}  // namespace sallyport::sandbox
