// frames.h - what vaultd (or the CLI) and hsmd say to each other, as values. Part of: proto/hsm (pure; any process).
// docs/protocol.md §12. Parsing takes one datagram of a SOCK_SEQPACKET socket and returns a value or what is wrong with
// it; nothing here does I/O, keeps state or allocates without a bound. A secret is never in a frame: see "the page".
//
// hsmd is started as `hsmd --config FILE --token NAME --calls-fd N --control-fd N --page-fd N [--operator]` and is one
// *keeper* per token, which starts the *worker* that loads the module. Three inherited descriptors:
//
//   calls    SEQPACKET, REQUEST_BYTES one way, REPLY_BYTES back: client <-> worker. Every worker inherits the same end,
//            so the client's descriptor lives through restarts. A worker reads one request after the other and answers
//            each exactly once, unless it dies. Several requests may be under way; answers come in any order. A client
//            that sends without reading fills both directions: send without blocking, and only to a worker that is up.
//   control  SEQPACKET, CONTROL_BYTES each way: client <-> keeper. The first frame of a worker's life is WorkerUp.
//            Closing it ends the keeper and all that it started. A keeper that dies is replaced, and the next one goes
//            on with the epochs behind that of the dead one; the end of the socket is the end of hsmd.
//   page     PAGE_BYTES of shared memory made by the client: memfd_secret, or a memfd sealed against shrinking.
//
// The page: SLOT_COUNT slots of SLOT_BYTES, then MESSAGE_BYTES for the message of a Sign. Secrets (results of Derive,
// an unwrapped key, a secret to wrap or to import, a PIN) pass through a slot alone. Who reads a slot wipes it. The
// client names the slot; it belongs to the request until its reply came or WorkerDied of its epoch did. There is one
// message area, so one Sign may be under way at a time; the worker leaves the message as it is.
//
// The epoch counts workers, from 1. A request carries the epoch that it is meant for; a worker of another epoch answers
// StaleEpoch and doesn't touch the token. A reply carries the epoch of its worker and the id of its request: take what
// you still wait for and drop the rest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "common/bytes.h"
#include "common/result.h"

namespace sallyport::hsm {

inline constexpr uint16_t PROTOCOL_VERSION = 1;
inline constexpr size_t REQUEST_BYTES = 1152;
inline constexpr size_t REPLY_BYTES = 1152;
inline constexpr size_t CONTROL_BYTES = 256;

inline constexpr size_t SLOT_BYTES = 64;
inline constexpr size_t SLOT_COUNT = 64;
inline constexpr size_t MESSAGE_OFFSET = SLOT_BYTES * SLOT_COUNT;
inline constexpr size_t MESSAGE_BYTES = 60 * 1024;  // of one Sign
inline constexpr size_t PAGE_BYTES = MESSAGE_OFFSET + MESSAGE_BYTES;
static_assert(PAGE_BYTES == 65536);

inline constexpr size_t MAX_BLOB_BYTES = 1024;  // what a token made of a wrapped key: RSA-8192 at most
inline constexpr size_t MAX_ID_BYTES = 64;      // CKA_ID; a key with a longer one is not listed
inline constexpr size_t MAX_LABEL_BYTES = 64;   // CKA_LABEL; longer ones are cut
inline constexpr size_t MAX_PIN_BYTES = SLOT_BYTES;
inline constexpr size_t MAX_KEYS = 64;           // of one token; more are not looked at
inline constexpr size_t MAX_DETAIL_BYTES = 200;  // what a status was about, for people; longer ones are cut

// A step of a module's start that takes longer than this, or than three times the configuration's deadline_ms, hangs.
inline constexpr uint64_t LEAST_STEP_MS = 15'000;

// --- what can happen -------------------------------------------------------------------------------------------------

enum class Status : uint8_t {
  Ok = 0,
  NoModule,            // the file is missing, is no PKCS#11 module, or doesn't initialise
  NoToken,             // no slot has a token that the URI describes
  AmbiguousToken,      // more than one has
  NoKey,               // no key has this index
  PinWrong,            // the token refused the PIN. It is not tried again until an operator gives one
  PinLocked,           // the token has locked the user's PIN (CKF_USER_PIN_LOCKED, CKR_PIN_LOCKED)
  PinLowRefused,       // CKF_USER_PIN_COUNT_LOW: not tried without an operator
  PinFinalTryRefused,  // CKF_USER_PIN_FINAL_TRY: not tried without an operator's force
  PinUnset,            // the token has no user PIN yet
  NotLoggedIn,         // no PIN yet: `ask`, or it was logged out
  DeviceRemoved,       // token or device is gone; the worker ends itself and is started again
  SessionLimit,        // the token gives no session
  ModuleFailed,        // any other CKR_*: see Reply::ckr
  BadResult,           // an answer that can't be right: length, all zero, a known answer that isn't
  Unsupported,         // this key or token can't do it
  BlobRejected,        // unwrap failed; never says why
  BadRequest,          // a slot, length or name out of range, or an unreadable frame
  StaleEpoch,          // meant for a worker that is gone
  KeyExists,           // GENERATE or IMPORT with an id or label that a key has already
  ReadOnly,            // the token is write-protected
  Starting,            // only in WorkerDied: ended before it had come up
  SaidTooMuch,         // only in WorkerDied: it told the keeper more than a worker has to tell, and was ended
  KeeperDied,          // only in WorkerDied: the keeper died and its worker with it; this is the word of the next one
  ModuleHangs,         // only in WorkerDied: a call of its start didn't come back, and the process was ended
};
inline constexpr size_t STATUS_COUNT = 25;
std::string_view name(Status status);  // "ok", "noModule", "pinWrong", ...: for logs, JSON and metrics
// For people: "the token refused the PIN". No full stop.
std::string_view describe(Status status);

// "CKR_DEVICE_MEMORY", or "CKR 0x80000001" of one that the standard doesn't know.
std::string ckrName(uint32_t ckr);

enum class KeyKind : uint8_t {
  Other,    // nothing that we can use
  X25519,   // Derive
  Ed25519,  // Sign
  Aes,      // Wrap, Unwrap by AES-GCM
  Rsa,      // Wrap, Unwrap by RSA-OAEP
};
inline constexpr size_t KEY_KIND_COUNT = 5;
std::string_view name(KeyKind kind);  // "other", "x25519", "ed25519", "aes", "rsa"
std::optional<KeyKind> keyKindOf(std::string_view name);

// How a module spells Curve25519 and how it wants the other side's point. Kept in a key file so that a changed module
// is noticed.
enum class Spelling : uint8_t {
  None,            // no X25519 key, or not proved
  Montgomery,      // CKK_EC_MONTGOMERY, OID 1.3.101.110
  MontgomeryName,  // CKK_EC_MONTGOMERY, PrintableString "curve25519"
  EdwardsName,     // CKK_EC_EDWARDS, PrintableString "curve25519": SoftHSM
  Edwards,         // CKK_EC_EDWARDS, OID 1.3.101.110: SoftHSM
  Weierstrass,     // CKK_EC, OID 1.3.6.1.4.1.11591.15.1: NSS. CKK_EC with other parameters is never touched
};
inline constexpr size_t SPELLING_COUNT = 6;
std::string_view name(Spelling spelling);  // "none", "montgomery", "montgomery-name", "edwards-name", "edwards", "ec"
std::optional<Spelling> spellingOf(std::string_view name);

enum class PointForm : uint8_t { Raw, Octets };  // 32 bytes, or 04 20 in front of them
std::string_view name(PointForm form);           // "raw", "octets"

// What wraps a random key in the token.
enum class WrapAlgorithm : uint8_t {
  Gcm = 1,         // AES-256-GCM; the blob is iv(12) ‖ ciphertext ‖ tag(16); `bound` is the additional data
  OaepSha256 = 2,  // RSA-OAEP with SHA-256 and MGF1 of it; `bound` must be checked by the caller, it is not in the blob
  OaepSha1 = 3,    // the same with SHA-1, for tokens that know no other
};
std::string_view name(WrapAlgorithm algorithm);  // "aes-gcm", "rsa-oaep-sha256", "rsa-oaep-sha1"
std::optional<WrapAlgorithm> wrapAlgorithmOf(std::string_view name);

// --- bounded fields --------------------------------------------------------------------------------------------------

// At most N bytes; what doesn't fit is refused by `of`, and cut by `cut`.
template <size_t N>
struct Bounded {
  std::array<std::byte, N> bytes{};
  uint16_t length = 0;

  ByteSpan span() const { return ByteSpan(bytes).first(length); }
  std::string text() const { return {reinterpret_cast<const char*>(bytes.data()), length}; }
  static std::optional<Bounded> of(ByteSpan from) {
    if (from.size() > N) return std::nullopt;
    return cut(from);
  }
  static Bounded cut(ByteSpan from) {
    Bounded result;
    result.length = static_cast<uint16_t>(from.size() < N ? from.size() : N);
    for (size_t i = 0; i < result.length; ++i) result.bytes[i] = from[i];
    return result;
  }
  static Bounded cut(std::string_view text) { return cut(asBytes(text)); }
  bool operator==(const Bounded&) const = default;
};
using KeyId = Bounded<MAX_ID_BYTES>;
using KeyLabel = Bounded<MAX_LABEL_BYTES>;
using Detail = Bounded<MAX_DETAIL_BYTES>;
using Blob = Bounded<MAX_BLOB_BYTES>;
using Block32 = std::array<std::byte, 32>;
using Block64 = std::array<std::byte, 64>;

// --- requests, and what answers each ---------------------------------------------------------------------------------

// Who is there. Answered in every state, as List, Probe and Ping are.
struct Hello {};
struct HelloReply {
  uint16_t version = PROTOCOL_VERSION;
  Status login = Status::NotLoggedIn;  // Ok, or why not: PinWrong, PinLowRefused, NotLoggedIn, ...
  uint32_t tokenFlags = 0;             // CK_TOKEN_INFO.flags as last read
  uint16_t keyCount = 0;               // of List
  uint16_t sessions = 0;               // how many operations can run at once
  Bounded<64> module = {};             // of CK_INFO: manufacturer and version
  Bounded<32> label = {}, manufacturer = {}, model = {}, serial = {};  // of CK_TOKEN_INFO, without the padding
};

// One key of the token, 0 <= index < keyCount. Keys don't change their index in one epoch; GENERATE and IMPORT append.
struct List {
  uint16_t index = 0;
};
struct KeyInfo {
  uint16_t index = 0;
  uint16_t count = 0;  // keyCount
  KeyKind kind = KeyKind::Other;
  Spelling spelling = Spelling::None;
  PointForm form = PointForm::Raw;
  Status proof = Status::Unsupported;  // X25519: Ok if its known answer came out; else why it can't be used
  bool sensitive = false;              // CKA_SENSITIVE
  bool extractable = false;            // CKA_EXTRACTABLE: `hsm status` warns
  bool gcm = false, oaepSha256 = false, oaepSha1 = false;  // what the token's mechanism list and the key allow
  uint16_t bits = 0;                                       // Aes, Rsa
  Block32 publicKey{};                                     // X25519, Ed25519
  KeyId id = {};
  KeyLabel label = {};
};

// X25519 with the key's secret: 32 bytes in the slot, before any hash. An all-zero result is BadResult.
struct Derive {
  uint16_t key = 0;
  uint16_t slot = 0;
  Block32 peer{};
};
struct Done {};  // answers Derive, Unwrap, Import..., where the reply's status or the page says it all

// Ed25519 over the first messageBytes of the message area.
struct Sign {
  uint16_t key = 0;
  uint32_t messageBytes = 0;
};
struct SignReply {
  Block64 signature{};
};

// The token encrypts the 32 bytes of the slot; the worker wipes them.
struct Wrap {
  uint16_t key = 0;
  uint16_t slot = 0;
  WrapAlgorithm algorithm = WrapAlgorithm::Gcm;
  Block32 bound{};
};
struct WrapReply {
  Blob blob = {};
};
// The other way: 32 bytes in the slot, or BlobRejected.
struct Unwrap {
  uint16_t key = 0;
  uint16_t slot = 0;
  WrapAlgorithm algorithm = WrapAlgorithm::Gcm;
  Block32 bound{};
  Blob blob = {};
};

// A new key in the token, not extractable. X25519, Ed25519, Aes (256 bits), Rsa (3072 bits). Answered by KeyInfo; needs
// --operator for X25519, which asks the module for its spelling in a throw-away process first.
struct Generate {
  KeyKind kind = KeyKind::X25519;
  KeyId id = {};
  KeyLabel label = {};
};
// The 32 bytes of the slot become a key of the token (X25519: the scalar; Ed25519: the seed; Aes); the worker wipes
// them. Answered by KeyInfo. --operator as above.
struct Import {
  KeyKind kind = KeyKind::X25519;
  uint16_t slot = 0;
  KeyId id = {};
  KeyLabel label = {};
};
// C_GenerateRandom: `bytes` <= 64 in the slot. To be mixed with the kernel's, never used alone.
struct Random {
  uint16_t slot = 0;
  uint16_t bytes = 32;
};

// A known answer by a key that can (Ok without one if there is none), and how the worker is.
struct Ping {};
struct PingReply {
  uint64_t rssKiB = 0;
  uint64_t calls = 0;       // answered by this worker
  uint32_t threads = 0;     // more than one: the module has its own
  uint32_t recoveries = 0;  // sessions dropped, logged in anew, keys found anew
};

// The PIN: the first pinBytes (1..MAX_PIN_BYTES) of the slot; the worker wipes it. `force`: even if it is the last try.
// The keeper keeps a PIN that was right, in secret memory, for the workers to come.
struct Login {
  uint16_t slot = 0;
  uint16_t pinBytes = 0;
  bool force = false;
};
// Forgets the PIN everywhere and logs out; only Login comes back from there. After Ok to either (unless it was logged
// in already) the worker ends: WorkerDied with Ok, then WorkerUp of a new epoch, with keys found and proved or without.
struct Logout {};

// One line of what the module can do, 0 <= index < count; with --operator only, else Unsupported.
struct Probe {
  uint16_t index = 0;
};
enum class Trial : uint8_t { Untried, Works, Refused, Wrong, Crashed, TimedOut };
inline constexpr size_t TRIAL_COUNT = 6;
std::string_view name(Trial trial);  // "untried", "works", "refused", "wrong result", "crashed", "timed out"
struct ProbeReply {
  uint16_t index = 0;
  uint16_t count = 0;
  Bounded<48> what = {};  // "derive: montgomery, raw", "seal: aes-gcm", ...
  Trial trial = Trial::Untried;
  uint32_t ckr = 0;           // of a refusal
  uint32_t microseconds = 0;  // of one operation that works
  Bounded<24> call = {};      // what refused, crashed or hung: "C_DeriveKey"
};

using Ask = std::variant<Hello, List, Derive, Sign, Wrap, Unwrap, Generate, Import, Random, Ping, Login, Logout, Probe>;
using Answer = std::variant<Done, HelloReply, KeyInfo, SignReply, WrapReply, PingReply, ProbeReply>;

struct Request {
  uint32_t epoch = 0;
  uint64_t id = 0;
  Ask ask = {};
};
struct Reply {
  uint32_t epoch = 0;
  uint64_t id = 0;
  Status status = Status::Ok;
  uint32_t ckr = 0;    // the module's CKR_* behind a status that isn't Ok; 0: none, or not to be told
  Answer answer = {};  // Done unless status is Ok
};

// --- control frames --------------------------------------------------------------------------------------------------

// Loaded, logged in (or not: `login`), keys found and proved, locked down: it answers.
struct WorkerUp {
  uint32_t epoch = 0;
  uint32_t pid = 0;
  Status login = Status::NotLoggedIn;
  Detail detail = {};  // why not: "C_Login answered CKR_GENERAL_ERROR". Foreign text: sanitize it
};
struct WorkerDied {
  uint32_t epoch = 0;
  uint32_t pid = 0;
  Status status = Status::Starting;  // why it ended itself (NoModule, NoToken, DeviceRemoved, ...), or ModuleFailed
  int32_t waitStatus = 0;            // of waitpid: for explainExit()
  uint32_t restartInMs = 0;
  Detail detail = {};  // "C_Initialize answered CKR_GENERAL_ERROR". Foreign text: sanitize it
};
// One layer of the worker's sandbox (sandbox/sandbox.h: Layer); all of them follow WorkerUp.
struct WorkerLayer {
  uint32_t epoch = 0;
  Bounded<16> layer = {};
  uint8_t state = 0;  // sandbox::LayerState
  Bounded<160> detail = {};
};
// System calls that the worker's filter refused; sent when it has changed, at most once a second.
struct Denials {
  uint32_t epoch = 0;
  uint64_t total = 0;
  Bounded<32> lastCall = {};  // "openat"
};

// The client's part.
enum class KillReason : uint8_t {
  Deadline,  // a call took too long
  Memory,    // it has grown too large
  Operator,  // it has a PIN that was to be forgotten, or one waits for the next worker
  Garbage,   // what it sent is no answer
  NewKey,    // the token has a key that it hasn't looked for
};
inline constexpr size_t KILL_REASON_COUNT = 5;
std::string_view name(KillReason reason);  // "deadline", "memory", "operator", "garbage", "newKey"
// For people: "a call took too long".
std::string_view describe(KillReason reason);
// SIGKILL, then a new worker; ignored if another epoch is alive. If this one is dead already, `Operator` has the next
// one started at once, whatever was told of restartInMs.
struct KillWorker {
  uint32_t epoch = 0;
  KillReason reason = KillReason::Deadline;
};
struct Stop {};  // the keeper ends the worker and itself; so does closing the socket
// The keeper's part: a trial of the probe before a worker didn't come back and was ended; the probe goes on behind it.
struct TrialHung {
  uint32_t epoch = 0;
  uint32_t afterMs = 0;
  Detail what = {};  // "x25519 generate: montgomery, raw, in C_DeriveKey". Foreign text: sanitize it
};

using Control = std::variant<WorkerUp, WorkerDied, WorkerLayer, Denials, KillWorker, Stop, TrialHung>;

// --- the codec -------------------------------------------------------------------------------------------------------

enum class FrameProblem : uint8_t {
  Length,   // not exactly the frame's size
  Magic,    // not of this kind and version
  Kind,     // an unknown verb
  Field,    // a length, enumeration or boolean out of range
  Padding,  // what a verb doesn't use must be zero
};
std::string_view name(FrameProblem problem);

using RequestFrame = std::array<std::byte, REQUEST_BYTES>;
using ReplyFrame = std::array<std::byte, REPLY_BYTES>;
using ControlFrame = std::array<std::byte, CONTROL_BYTES>;

RequestFrame writeRequest(const Request& request);
ReplyFrame writeReply(const Reply& reply);
ControlFrame writeControl(const Control& control);
Result<Request, FrameProblem> parseRequest(ByteSpan datagram);
Result<Reply, FrameProblem> parseReply(ByteSpan datagram);
Result<Control, FrameProblem> parseControl(ByteSpan datagram);

// "hello", "derive", ...: for logs and metrics.
std::string_view nameOf(const Ask& ask);

}  // namespace sallyport::hsm
