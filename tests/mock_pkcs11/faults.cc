#include "tests/mock_pkcs11/faults.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <sstream>

#include "tests/mock_pkcs11/side_effects.h"

namespace sallyport::mock {

namespace {

uint64_t number(std::string_view text, uint64_t otherwise = 0) {
  const int base = text.starts_with("0x") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n, base);
  return error == std::errc{} && end == text.data() + text.size() ? n : otherwise;
}

std::pair<std::string, std::string> splitWord(const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) return {word, ""};
  return {word.substr(0, equals), word.substr(equals + 1)};
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

}  // namespace

bool Traits::lacks(std::string_view mechanism) const {
  return std::find(without.begin(), without.end(), mechanism) != without.end();
}

Faults::~Faults() {
  if (fd_ >= 0) close(fd_);
}

void Faults::open(const std::string& folder) {
  if (fd_ >= 0) return;
  // Kept: after lock-down no path opens any more, and a test must still reach the module.
  fd_ = ::open((folder + "/faults").c_str(), O_RDONLY | O_CLOEXEC);
  counters_.open((folder + "/counters").c_str());
}

std::optional<Faults::Rule> Faults::parseRule(std::string_view line) {
  Rule rule;
  rule.id = "rule:" + std::to_string(std::hash<std::string_view>{}(line));
  std::istringstream words{std::string(line.substr(0, line.find('#')))};
  if (!(words >> rule.function)) return std::nullopt;
  for (std::string word; words >> word;) {
    auto [name, value] = splitWord(word);
    if (name == "after") {
      rule.after = number(value);
    } else if (name == "times") {
      rule.times = number(value);
    } else {
      rule.actions.emplace_back(name, value);
    }
  }
  return rule;
}

void Faults::parseTraits(std::string_view line) {
  std::istringstream words{std::string(line.substr(0, line.find('#')))};
  for (std::string word; words >> word;) {
    const auto [name, value] = splitWord(word);
    if (name == "max_sessions") traits_.maxSessions = number(value);
    if (name == "point") traits_.derPoint = value == "der";
    if (name == "peer") {
      traits_.peerRaw = value != "der";
      traits_.peerDer = value != "raw";
    }
    if (name == "params") traits_.nameParams = value == "name";
    if (name == "sticky_operations") traits_.stickyOperations = value != "0";
    if (name == "removed") traits_.removed = value != "0";
    if (name == "without") traits_.without = split(value, ',');
  }
}

void Faults::refresh() {
  if (fd_ < 0) return;
  std::array<char, 8192> buffer;
  const ssize_t n = pread(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0) return;
  std::string text(buffer.data(), static_cast<size_t>(n));
  text.resize(text.rfind('\n') + 1);  // a line counts when it is whole; npos + 1 is 0
  if (text == text_) return;
  text_ = text;
  rules_.clear();
  traits_ = {};
  for (const std::string& line : split(text_, '\n')) {
    auto rule = parseRule(line);
    if (!rule) continue;
    if (rule->function == "token") {
      parseTraits(line);
    } else {
      rules_.push_back(std::move(*rule));
    }
  }
}

Traits Faults::traits() {
  std::lock_guard lock(mutex_);
  refresh();
  return traits_;
}

Plan Faults::enter(std::string_view function) {
  counters_.add(function);
  std::vector<Rule> rules;
  {
    std::lock_guard lock(mutex_);
    refresh();
    rules = rules_;
  }
  Plan plan;
  for (const Rule& rule : rules) {
    if (rule.function != "*" && rule.function != function) continue;
    const uint64_t before = counters_.add(rule.id);
    if (before < rule.after || before - rule.after >= rule.times) continue;
    for (const auto& [action, value] : rule.actions) {
      if (action == "return") plan.rv = ckrByName(value).value_or(number(value, CKR_GENERAL_ERROR));
      if (action == "latency") sleepMs(static_cast<unsigned>(number(value)));
      if (action == "hang") hang();
      if (action == "segfault") segfault();
      if (action == "abort") abort();
      if (action == "exit") exit(static_cast<int>(number(value)));
      if (action == "fork") forkHelper();
      if (action == "threads") startThreads(static_cast<unsigned>(number(value)));
      if (action == "syslog") logToSyslog();
      if (action == "babble") babble(static_cast<int>(number(value)));
      if (action == "leak") leak(number(value));
      if (action == "syscall") attempt(value, counters_);
      if (action == "lose-sessions") plan.loseSessions = true;
      if (action == "null") plan.null = true;
      if (action == "holes") plan.holes = true;
      if (action == "wrong") plan.wrong = true;
      if (action == "zero") plan.zero = true;
      if (action == "strip") (value == "last" ? plan.stripLast : plan.stripFirst) = true;
      if (action == "length") plan.length = number(value);
    }
    if (plan.rv) break;
  }
  return plan;
}

#define MOCK_CKR_NAMES(X) \
  X(CKR_OK) \
  X(CKR_CANCEL) \
  X(CKR_HOST_MEMORY) \
  X(CKR_SLOT_ID_INVALID) X(CKR_GENERAL_ERROR) X(CKR_FUNCTION_FAILED) X(CKR_ARGUMENTS_BAD) X(CKR_NO_EVENT) X( \
      CKR_NEED_TO_CREATE_THREADS) X(CKR_CANT_LOCK) X(CKR_ATTRIBUTE_READ_ONLY) X(CKR_ATTRIBUTE_SENSITIVE) \
      X(CKR_ATTRIBUTE_TYPE_INVALID) X(CKR_ATTRIBUTE_VALUE_INVALID) X(CKR_ACTION_PROHIBITED) X(CKR_DATA_INVALID) X( \
          CKR_DATA_LEN_RANGE) X(CKR_DEVICE_ERROR) X(CKR_DEVICE_MEMORY) X(CKR_DEVICE_REMOVED) \
          X(CKR_ENCRYPTED_DATA_INVALID) X(CKR_ENCRYPTED_DATA_LEN_RANGE) X(CKR_FUNCTION_CANCELED) X( \
              CKR_FUNCTION_NOT_PARALLEL) X(CKR_FUNCTION_NOT_SUPPORTED) X(CKR_KEY_HANDLE_INVALID) X(CKR_KEY_SIZE_RANGE) \
              X(CKR_KEY_TYPE_INCONSISTENT) X(CKR_KEY_NOT_NEEDED) X(CKR_KEY_CHANGED) X(CKR_KEY_NEEDED) \
                  X(CKR_KEY_INDIGESTIBLE) X(CKR_KEY_FUNCTION_NOT_PERMITTED) X(CKR_KEY_NOT_WRAPPABLE) \
                      X(CKR_KEY_UNEXTRACTABLE) X(CKR_MECHANISM_INVALID) X(CKR_MECHANISM_PARAM_INVALID) X( \
                          CKR_OBJECT_HANDLE_INVALID) X(CKR_OPERATION_ACTIVE) X(CKR_OPERATION_NOT_INITIALIZED) \
                          X(CKR_PIN_INCORRECT) X(CKR_PIN_INVALID) X(CKR_PIN_LEN_RANGE) X(CKR_PIN_EXPIRED) X( \
                              CKR_PIN_LOCKED) X(CKR_SESSION_CLOSED) X(CKR_SESSION_COUNT) X(CKR_SESSION_HANDLE_INVALID) \
                              X(CKR_SESSION_PARALLEL_NOT_SUPPORTED) X(CKR_SESSION_READ_ONLY) X(CKR_SESSION_EXISTS) X( \
                                  CKR_SESSION_READ_ONLY_EXISTS) X(CKR_SESSION_READ_WRITE_SO_EXISTS) \
                                  X(CKR_SIGNATURE_INVALID) X(CKR_SIGNATURE_LEN_RANGE) X(CKR_TEMPLATE_INCOMPLETE) X( \
                                      CKR_TEMPLATE_INCONSISTENT) X(CKR_TOKEN_NOT_PRESENT) X(CKR_TOKEN_NOT_RECOGNIZED) \
                                      X(CKR_TOKEN_WRITE_PROTECTED) X(CKR_UNWRAPPING_KEY_SIZE_RANGE) X( \
                                          CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT) X(CKR_USER_ALREADY_LOGGED_IN) \
                                          X(CKR_USER_NOT_LOGGED_IN) X(CKR_USER_PIN_NOT_INITIALIZED) X( \
                                              CKR_USER_TYPE_INVALID) X(CKR_USER_ANOTHER_ALREADY_LOGGED_IN) \
                                              X(CKR_USER_TOO_MANY_TYPES) X(CKR_WRAPPED_KEY_INVALID) X( \
                                                  CKR_WRAPPED_KEY_LEN_RANGE) X(CKR_WRAPPING_KEY_HANDLE_INVALID) \
                                                  X(CKR_WRAPPING_KEY_SIZE_RANGE) X(CKR_WRAPPING_KEY_TYPE_INCONSISTENT) \
                                                      X(CKR_RANDOM_SEED_NOT_SUPPORTED) X(CKR_RANDOM_NO_RNG) \
                                                          X(CKR_DOMAIN_PARAMS_INVALID) X(CKR_CURVE_NOT_SUPPORTED) \
                                                              X(CKR_BUFFER_TOO_SMALL) X(CKR_SAVED_STATE_INVALID) \
                                                                  X(CKR_INFORMATION_SENSITIVE) X(CKR_STATE_UNSAVEABLE) \
                                                                      X(CKR_CRYPTOKI_NOT_INITIALIZED) \
                                                                          X(CKR_CRYPTOKI_ALREADY_INITIALIZED) \
                                                                              X(CKR_MUTEX_BAD) X(CKR_MUTEX_NOT_LOCKED) \
                                                                                  X(CKR_FUNCTION_REJECTED)

std::optional<CK_RV> ckrByName(std::string_view name) {
#define MOCK_CKR_ENTRY(ckr) \
  if (name == #ckr) return ckr;
  MOCK_CKR_NAMES(MOCK_CKR_ENTRY)
#undef MOCK_CKR_ENTRY
  return std::nullopt;
}

}  // namespace sallyport::mock
