// names.cc - the words for frames.h's enumerations: for logs, key files, JSON and people. Part of: proto/hsm (pure; any
// process). A word is part of a format once it is in a key file: never change one.
#include <array>

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
