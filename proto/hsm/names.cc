// names.cc - the words for frames.h's enumerations: for logs, key files, JSON and people. Part of: proto/hsm (pure; any
// process). A word is part of a format once it is in a key file: never change one.
#include <array>
#include <cstdio>

#include "proto/hsm/frames.h"

namespace sallyport::hsm {

namespace {

struct StatusWords {
  std::string_view name;
  std::string_view description;
};

constexpr std::array<StatusWords, STATUS_COUNT> STATUS_WORDS{{
    {"ok", "all is well"},
    {"noModule", "the PKCS#11 module can't be loaded or doesn't initialise"},
    {"noToken", "no token matches the URI"},
    {"ambiguousToken", "more than one token matches the URI"},
    {"noKey", "the token has no such key"},
    {"pinWrong", "the token refused the PIN; it is not tried again by itself"},
    {"pinLocked", "the token has locked its PIN"},
    {"pinLowRefused", "few PIN tries are left; an operator has to unlock the token"},
    {"pinFinalTryRefused", "one PIN try is left; an operator has to unlock the token with force"},
    {"pinUnset", "the token has no user PIN yet"},
    {"notLoggedIn", "the token waits for its PIN"},
    {"deviceRemoved", "the token was removed"},
    {"sessionLimit", "the token gives no session"},
    {"moduleFailed", "the module reported an error"},
    {"badResult", "the module gave a wrong result"},
    {"unsupported", "this key or token can't do it"},
    {"blobRejected", "the token couldn't unwrap the key"},
    {"badRequest", "hsmd couldn't understand the request"},
    {"staleEpoch", "the module's process was restarted"},
    {"keyExists", "the token has a key of this id or label already"},
    {"readOnly", "the token is write-protected"},
    {"starting", "the module's process ended while it started"},
    {"saidTooMuch", "the module's process told its keeper more than it has to tell, and was ended"},
    {"keeperDied", "the process that watches over the module's died; another one has taken its place"},
    {"moduleHangs", "the module doesn't come back"},
}};

constexpr std::array<std::string_view, KEY_KIND_COUNT> KEY_KINDS{"other", "x25519", "ed25519", "aes", "rsa"};
constexpr std::array<std::string_view, SPELLING_COUNT> SPELLINGS{"none",         "montgomery", "montgomery-name",
                                                                 "edwards-name", "edwards",    "ec"};
constexpr std::array<std::string_view, 2> FORMS{"raw", "octets"};
constexpr std::array<std::string_view, 3> WRAPS{"aes-gcm", "rsa-oaep-sha256", "rsa-oaep-sha1"};  // from 1 on
constexpr std::array<std::string_view, TRIAL_COUNT> TRIALS{"untried",      "works",   "refused",
                                                           "wrong result", "crashed", "timed out"};
constexpr std::array<std::string_view, KILL_REASON_COUNT> KILL_REASONS{"deadline", "memory", "operator", "garbage",
                                                                       "newKey"};
constexpr std::array<std::string_view, KILL_REASON_COUNT> KILL_DESCRIPTIONS{
    "a call took too long", "it has grown too large", "it has a PIN that was to be forgotten",
    "what it sent is no answer", "the token has a new key"};
constexpr std::array<std::string_view, 5> PROBLEMS{"length", "magic", "kind", "field", "padding"};
constexpr std::array<std::string_view, std::variant_size_v<Ask>> VERBS{"hello",  "list",     "derive", "sign",   "wrap",
                                                                       "unwrap", "generate", "import", "random", "ping",
                                                                       "login",  "logout",   "probe"};

// Of PKCS #11 3.1. Here, because programs that load no module tell of them.
struct CkrName {
  uint32_t ckr;
  std::string_view name;
};
constexpr CkrName CKR_NAMES[] = {
    {0x001, "CANCEL"},
    {0x002, "HOST_MEMORY"},
    {0x003, "SLOT_ID_INVALID"},
    {0x005, "GENERAL_ERROR"},
    {0x006, "FUNCTION_FAILED"},
    {0x007, "ARGUMENTS_BAD"},
    {0x008, "NO_EVENT"},
    {0x009, "NEED_TO_CREATE_THREADS"},
    {0x00a, "CANT_LOCK"},
    {0x010, "ATTRIBUTE_READ_ONLY"},
    {0x011, "ATTRIBUTE_SENSITIVE"},
    {0x012, "ATTRIBUTE_TYPE_INVALID"},
    {0x013, "ATTRIBUTE_VALUE_INVALID"},
    {0x01b, "ACTION_PROHIBITED"},
    {0x020, "DATA_INVALID"},
    {0x021, "DATA_LEN_RANGE"},
    {0x030, "DEVICE_ERROR"},
    {0x031, "DEVICE_MEMORY"},
    {0x032, "DEVICE_REMOVED"},
    {0x040, "ENCRYPTED_DATA_INVALID"},
    {0x041, "ENCRYPTED_DATA_LEN_RANGE"},
    {0x050, "FUNCTION_CANCELED"},
    {0x051, "FUNCTION_NOT_PARALLEL"},
    {0x054, "FUNCTION_NOT_SUPPORTED"},
    {0x060, "KEY_HANDLE_INVALID"},
    {0x062, "KEY_SIZE_RANGE"},
    {0x063, "KEY_TYPE_INCONSISTENT"},
    {0x064, "KEY_NOT_NEEDED"},
    {0x065, "KEY_CHANGED"},
    {0x066, "KEY_NEEDED"},
    {0x067, "KEY_INDIGESTIBLE"},
    {0x068, "KEY_FUNCTION_NOT_PERMITTED"},
    {0x069, "KEY_NOT_WRAPPABLE"},
    {0x06a, "KEY_UNEXTRACTABLE"},
    {0x070, "MECHANISM_INVALID"},
    {0x071, "MECHANISM_PARAM_INVALID"},
    {0x082, "OBJECT_HANDLE_INVALID"},
    {0x090, "OPERATION_ACTIVE"},
    {0x091, "OPERATION_NOT_INITIALIZED"},
    {0x0a0, "PIN_INCORRECT"},
    {0x0a1, "PIN_INVALID"},
    {0x0a2, "PIN_LEN_RANGE"},
    {0x0a3, "PIN_EXPIRED"},
    {0x0a4, "PIN_LOCKED"},
    {0x0b0, "SESSION_CLOSED"},
    {0x0b1, "SESSION_COUNT"},
    {0x0b3, "SESSION_HANDLE_INVALID"},
    {0x0b4, "SESSION_PARALLEL_NOT_SUPPORTED"},
    {0x0b5, "SESSION_READ_ONLY"},
    {0x0b6, "SESSION_EXISTS"},
    {0x0b7, "SESSION_READ_ONLY_EXISTS"},
    {0x0b8, "SESSION_READ_WRITE_SO_EXISTS"},
    {0x0c0, "SIGNATURE_INVALID"},
    {0x0c1, "SIGNATURE_LEN_RANGE"},
    {0x0d0, "TEMPLATE_INCOMPLETE"},
    {0x0d1, "TEMPLATE_INCONSISTENT"},
    {0x0e0, "TOKEN_NOT_PRESENT"},
    {0x0e1, "TOKEN_NOT_RECOGNIZED"},
    {0x0e2, "TOKEN_WRITE_PROTECTED"},
    {0x0f0, "UNWRAPPING_KEY_HANDLE_INVALID"},
    {0x100, "USER_ALREADY_LOGGED_IN"},
    {0x101, "USER_NOT_LOGGED_IN"},
    {0x102, "USER_PIN_NOT_INITIALIZED"},
    {0x103, "USER_TYPE_INVALID"},
    {0x104, "USER_ANOTHER_ALREADY_LOGGED_IN"},
    {0x105, "USER_TOO_MANY_TYPES"},
    {0x110, "WRAPPED_KEY_INVALID"},
    {0x120, "RANDOM_SEED_NOT_SUPPORTED"},
    {0x121, "RANDOM_NO_RNG"},
    {0x130, "DOMAIN_PARAMS_INVALID"},
    {0x140, "CURVE_NOT_SUPPORTED"},
    {0x150, "BUFFER_TOO_SMALL"},
    {0x170, "INFORMATION_SENSITIVE"},
    {0x180, "STATE_UNSAVEABLE"},
    {0x190, "CRYPTOKI_NOT_INITIALIZED"},
    {0x191, "CRYPTOKI_ALREADY_INITIALIZED"},
    {0x1a0, "MUTEX_BAD"},
    {0x1a1, "MUTEX_NOT_LOCKED"},
    {0x1b6, "FIPS_SELF_TEST_FAILED"},
    {0x1b7, "LIBRARY_LOAD_FAILED"},
    {0x1b8, "PIN_TOO_WEAK"},
    {0x1b9, "PUBLIC_KEY_INVALID"},
    {0x200, "FUNCTION_REJECTED"},
};

template <typename Words>
std::string_view wordAt(const Words& words, size_t index) {
  return index < words.size() ? words[index] : "unknown";
}

template <typename E, typename Words>
std::optional<E> find(const Words& words, std::string_view name, size_t first = 0) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == name) return static_cast<E>(i + first);
  }
  return std::nullopt;
}

}  // namespace

std::string_view name(Status status) {
  const auto index = static_cast<size_t>(status);
  return index < STATUS_COUNT ? STATUS_WORDS[index].name : "unknown";
}
std::string_view describe(Status status) {
  const auto index = static_cast<size_t>(status);
  return index < STATUS_COUNT ? STATUS_WORDS[index].description : "an unknown status";
}

std::string ckrName(uint32_t ckr) {
  for (const CkrName& known : CKR_NAMES) {
    if (known.ckr == ckr) return "CKR_" + std::string(known.name);
  }
  char number[16];
  std::snprintf(number, sizeof number, "CKR 0x%x", ckr);
  return number;
}

std::string_view name(KeyKind kind) { return wordAt(KEY_KINDS, static_cast<size_t>(kind)); }
std::string_view name(Spelling spelling) { return wordAt(SPELLINGS, static_cast<size_t>(spelling)); }
std::string_view name(PointForm form) { return wordAt(FORMS, static_cast<size_t>(form)); }
std::string_view name(WrapAlgorithm algorithm) { return wordAt(WRAPS, static_cast<size_t>(algorithm) - 1); }
std::string_view name(Trial trial) { return wordAt(TRIALS, static_cast<size_t>(trial)); }
std::string_view describe(KillReason reason) { return wordAt(KILL_DESCRIPTIONS, static_cast<size_t>(reason)); }
std::string_view name(KillReason reason) { return wordAt(KILL_REASONS, static_cast<size_t>(reason)); }
std::string_view name(FrameProblem problem) { return wordAt(PROBLEMS, static_cast<size_t>(problem)); }
std::string_view nameOf(const Ask& ask) { return VERBS[ask.index()]; }

std::optional<KeyKind> keyKindOf(std::string_view name) { return find<KeyKind>(KEY_KINDS, name); }
std::optional<Spelling> spellingOf(std::string_view name) { return find<Spelling>(SPELLINGS, name); }
std::optional<WrapAlgorithm> wrapAlgorithmOf(std::string_view name) { return find<WrapAlgorithm>(WRAPS, name, 1); }

}  // namespace sallyport::hsm
