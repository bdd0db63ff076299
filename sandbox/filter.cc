// filter.cc - the syscall filter: a compiled-in policy handed to the kernel through libseccomp. Part of: sandbox (any
// daemon). A call of another architecture (int 0x80, x32) kills, whatever the policy's default.
#include <seccomp.h>
#include <unistd.h>

#include <memory>

#include "common/check.h"
#include "sandbox/layers.h"
#include "sandbox/policy.h"

namespace sallyport::sandbox {

namespace {

uint32_t actionCode(Action action, int errorNumber) {
  switch (action) {
    case Action::Allow: return SCMP_ACT_ALLOW;
    case Action::Kill: return SCMP_ACT_KILL_PROCESS;
    case Action::Errno: return SCMP_ACT_ERRNO(static_cast<uint32_t>(errorNumber));
  }
  return SCMP_ACT_KILL_PROCESS;
}

// Told to a reader who refuses it, where the kernel can do that (5.0) and nobody further out does it already.
uint32_t countedCode() {
  const int api = static_cast<int>(seccomp_api_get());
  return api >= 5 ? SCMP_ACT_NOTIFY : 0;
}

// 0 or -errno.
int addRule(scmp_filter_ctx filter, const Rule& rule) {
  CHECK(rule.conditionCount <= MAX_CONDITIONS);
  scmp_arg_cmp comparisons[MAX_CONDITIONS]{};
  for (unsigned i = 0; i < rule.conditionCount; ++i) {
    const Condition& condition = rule.conditions[i];
    const uint64_t value = condition.ownPid ? static_cast<uint64_t>(getpid()) : condition.value;
    comparisons[i] = {.arg = condition.argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = condition.mask, .datum_b = value};
  }
  return seccomp_rule_add_array(filter, actionCode(rule.action, rule.errorNumber), rule.syscall, rule.conditionCount,
                                comparisons);
}

int addRules(scmp_filter_ctx filter, const Policy& policy, uint32_t defaultCode) {
  for (const Rule& rule : policy.rules) {
    if (actionCode(rule.action, rule.errorNumber) == defaultCode) continue;
    if (const int result = addRule(filter, rule); result < 0 && result != -EEXIST) return result;
  }
  return 0;
}

}  // namespace

namespace {

Layer load(const Options& options, uint32_t defaultCode, int& refusals) {
  const Policy& policy = policyOf(options.profile);
  std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(defaultCode), seccomp_release);
  if (filter == nullptr) return notHeld("seccomp", "seccomp_init", ENOMEM, true);
  int result = seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  if (result == 0)
    result = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a binary tree instead of a list
  if (result == 0) result = seccomp_attr_set(filter.get(), SCMP_FLTATR_API_SYSRAWRC, 1);  // the kernel's own errno
  // A module may have threads already.
  if (result == 0 && loadsModule(options.profile)) result = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  if (result == 0) result = addRules(filter.get(), policy, defaultCode);
  if (result == 0 && SANITIZED) result = addRules(filter.get(), sanitizerPolicy(), defaultCode);
  if (result < 0)
    return {.name = "seccomp", .state = LayerState::Failed, .detail = problemOf("policy", -result), .mandatory = true};

  // Freeing the filter's tree after it is loaded is plain memory work, which every policy allows. The text is made
  // before.
  std::string detail = std::to_string(policy.rules.size()) + " rules, default ";
  detail += policy.defaultAction == Action::Kill ? "kill" : "refuse";
  if (SANITIZED) detail += ", widened for the sanitizer";
  if (defaultCode == SCMP_ACT_NOTIFY) detail += " and count";
  result = seccomp_load(filter.get());
  if (result < 0) return notHeld("seccomp", "seccomp_load", -result, true);
  if (defaultCode == SCMP_ACT_NOTIFY) refusals = seccomp_notify_fd(filter.get());
  return offered("seccomp", detail, true);
}

}  // namespace

Layer loadFilter(const Options& options, int& refusals) {
  const Policy& policy = policyOf(options.profile);
  const uint32_t plain = actionCode(policy.defaultAction, policy.defaultErrorNumber);
  const uint32_t counted = options.countRefusals && policy.defaultAction == Action::Errno ? countedCode() : 0;
  if (counted != 0) {
    // EBUSY: a container's manager reads such calls itself. Then they are refused without being counted.
    Layer layer = load(options, counted, refusals);
    if (layer.state == LayerState::Active) return layer;
  }
  return load(options, plain, refusals);
}

}  // namespace sallyport::sandbox
