// vault.h - what a program asks of the vault: boxes, signatures and fresh nonces under keys that it can't take.
// Part of: libsallyport (the caller's process). The contract behind it is proto/vault.capnp, explained in docs/api.md.
//
//     auto vault = sallyport::client::Vault::connect("/run/sallyport/vault/vault.sock");
//     auto key = vault.key("backup");
//     auto boxed = key.box(Peer::named("alice"), "text");          // boxed.nonce, boxed.box
//
// **Blocking and simple.** Each call waits for its answer. The forms that end in `Each` take any number of items, judge
// each by itself, and send what doesn't fit one message as pipelined calls: 1000 items cost a few round trips.
//
// **Errors.** A call returns what its name says or throws Error, whose code() is the vault's refusal by the schema's
// own name (`notPermitted`) or one of the library's codes (`disconnected`). An `Each` form puts refusals into the
// items' Outcomes and throws only when there is no answer at all.
//
// **Restarts.** When the vault has gone, a call that was waiting throws `disconnected`. Every later call connects anew
// and asks again for the Key's capability; while nobody serves the socket it throws `cantConnect`. A lease that the
// program asked for goes on over a restart with what is left of it.
//
// **Threads.** Every object may be used by any number of threads at a time, except while it is moved or destroyed.
// Calls of one Vault and its Keys take turns on one connection; use a Vault for each thread where that is too slow. No
// thread is started, no signal handled, and after fork() the child makes a connection of its own.
//
// **Secrets.** A text that was opened is a Plaintext: wiped when it dies, move-only. The library's own buffers are
// wiped too. What the program does with its own copies is the program's business.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sallyport::client {

// The vault's refusals by the names and numbers of `Refusal` in proto/vault.capnp, and what can go wrong on this side.
// A newer vault may refuse with a number that is not here: treat it as a refusal.
enum class Code : int {
  ok = 0,
  unknownEntry = 1,
  unknownKey = 2,
  peerNotAllowed = 3,
  badBox = 4,
  badSize = 5,
  lowOrderKey = 6,
  rateLimited = 7,
  nonceUnavailable = 8,
  locked = 9,
  tooMany = 10,
  notPermitted = 11,
  badConfig = 12,
  badNonce = 13,
  tooLong = 14,
  expired = 15,
  wrongKind = 16,
  wrongVersion = 17,
  breakerOpen = 18,
  notRecorded = 19,
  tooManyObjects = 20,
  badSignature = 21,
  badDomain = 22,
  hsmUnavailable = 23,
  wrongProtocol = 24,
  blockUsed = 25,
  unspecified = 255,  // the vault gave no reason

  cantConnect = 256,     // nobody serves the socket, or this user may not connect to it
  disconnected = 257,    // the vault went away, or cut us off, before it answered
  timedOut = 258,        // no answer in time; the connection was dropped
  unsupported = 259,     // the other side doesn't know the call: another socket than [vault] socket, or an older vault
  protocolError = 260,   // the other side doesn't speak its protocol
  vaultFailed = 261,     // the vault answered with an exception: look at its log
  selfTestFailed = 262,  // ping: the vault's known-answer test failed
  closed = 263,          // the Key or Vault was closed by this program
  badArgument = 264,     // a null pointer, or a value that can't be
  bufferTooSmall = 265,  // C: the answer needs more room
  outOfMemory = 266,
  broken = 267,  // a channel: the connection failed; the detail is the drop reason's name

  // NET_CODES and more: netd's refusals, by the numbers of `NetRefusal` in proto/net.capnp.
  netUnspecified = 512,
  netUnknownName = 513,
  netNotAChannel = 514,
  netTimedOut = 515,
  netUnreachable = 516,
  netHandshakeFailed = 517,
  netVaultRefused = 518,
  netTooBig = 519,
  netClosed = 520,
  netTooManyObjects = 521,
  netFailed = 522,
  netShuttingDown = 523,
  netWrongProtocol = 524,
  netReservedCode = 525,
};
inline constexpr int NET_CODES = 512;
// The schema's name of a code ("notPermitted"), or "unknown".
const char* name(Code code) noexcept;
// A sentence for people.
const char* describe(Code code) noexcept;

class Error : public std::runtime_error {
 public:
  explicit Error(Code code, const std::string& detail = {});
  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

// Bytes that are only read during the call: a string, a vector, an array.
class View {
 public:
  View() = default;
  View(std::span<const std::byte> bytes) : bytes_(bytes) {}
  View(std::span<const unsigned char> bytes) : bytes_(std::as_bytes(bytes)) {}
  View(const std::vector<std::byte>& bytes) : bytes_(bytes) {}
  View(const std::vector<unsigned char>& bytes) : bytes_(std::as_bytes(std::span(bytes))) {}
  template <size_t N>
  View(const std::array<std::byte, N>& bytes) : bytes_(bytes) {}
  View(std::string_view text) : bytes_(std::as_bytes(std::span(text.data(), text.size()))) {}
  View(const std::string& text) : View(std::string_view(text)) {}
  View(const char* text) : View(std::string_view(text)) {}

  std::span<const std::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
};

using Bytes = std::vector<std::byte>;
using PublicKey = std::array<std::byte, 32>;
using Nonce = std::array<std::byte, 24>;  // of a box: "SallyBox" and 16 bytes
using FreshNonce = std::array<std::byte, 16>;
using Signature = std::array<std::byte, 64>;

// A text that came out of a box. Wiped when it dies.
class Plaintext {
 public:
  Plaintext() = default;
  explicit Plaintext(std::span<const std::byte> bytes) : bytes_(bytes.begin(), bytes.end()) {}
  Plaintext(Plaintext&& other) noexcept : bytes_(std::move(other.bytes_)) {}
  Plaintext& operator=(Plaintext&& other) noexcept;
  Plaintext(const Plaintext&) = delete;
  Plaintext& operator=(const Plaintext&) = delete;
  ~Plaintext() { wipe(); }

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }
  size_t size() const { return bytes_.size(); }
  void wipe() noexcept;

 private:
  Bytes bytes_;
};

// What became of one item of a batch.
template <typename T>
class Outcome {
 public:
  Outcome() : code_(Code::unspecified) {}
  Outcome(Code code) : code_(code) {}
  Outcome(T value) : code_(Code::ok), value_(std::move(value)) {}

  explicit operator bool() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  // Throws Error if the item was refused.
  T& value() & { return check(), *value_; }
  const T& value() const& { return check(), *value_; }
  T&& value() && { return check(), std::move(*value_); }

 private:
  void check() const {
    if (code_ != Code::ok) throw Error(code_);
  }

  Code code_;
  std::optional<T> value_;
};

enum class Verb : uint16_t { box, open, sign, freshNonce };

// Who boxed it, or whom it is boxed to.
class Peer {
 public:
  static Peer named(std::string name);  // one of [peers] in the vault's configuration
  static Peer key(View publicKey);      // X25519, 32 bytes; another size is refused by the vault as badSize

  bool isName() const { return isName_; }
  const std::string& value() const { return value_; }  // the name, or the key's bytes

 private:
  Peer(bool isName, std::string value) : isName_(isName), value_(std::move(value)) {}

  bool isName_;
  std::string value_;
};

struct BoxItem {
  Peer peer;
  View text;
};
struct Boxed {
  Nonce nonce{};
  Bytes box;             // 16 bytes longer than the text
  uint32_t version = 0;  // of our key
};
struct OpenItem {
  Peer peer;
  View nonce;
  View box;
};
struct Opened {
  Plaintext text;
  uint32_t version = 0;
};
struct Signed {
  Signature signature{};
  uint32_t version = 0;
};
struct VerifyItem {
  View publicKey;  // 32 bytes, Ed25519
  View message;
  View signature;  // 64 bytes
};
struct PublicKeys {
  PublicKey active;
  uint32_t version = 0;            // the active one; 0: the vault is older than this field
  std::vector<PublicKey> opening;  // of all versions that may open now, the active one first
};
struct GrantedKey {
  std::string name;
  std::string kind;                    // "x25519" or "ed25519"
  std::optional<PublicKey> publicKey;  // of the active version, if there is one
  std::vector<Verb> verbs;
  std::vector<std::string> grants;  // the [[grant]] sections that say so
};

struct Options {
  // How long a call waits for its next answer, and connecting for the connection.
  std::chrono::milliseconds timeout{10'000};
};

class Key;

class Vault {
 public:
  // Connects and asks for a self-test, so that a wrong path fails here and not later.
  static Vault connect(const std::string& path, Options options = {});
  Vault(Vault&&) noexcept;
  Vault& operator=(Vault&&) noexcept;
  ~Vault();

  // Throws selfTestFailed if the vault's known-answer test does.
  void ping();
  PublicKey publicKey(std::string_view key);
  // With the number of the version, and the public halves of what still opens: to whom something may be boxed.
  PublicKeys publicKeys(std::string_view key);
  // A key with those of `verbs` that policy grants (none given: all of them), for at most `lease` (zero: the longest
  // that policy allows). notPermitted: no such key, or nothing of it is granted.
  Key key(std::string_view name, std::span<const Verb> verbs = {}, std::chrono::milliseconds lease = {});
  std::vector<GrantedKey> keys();
  // Returns if the signature is genuine, and throws (badSignature, badSize, lowOrderKey) if not.
  void verify(View publicKey, View message, View signature);
  std::vector<Code> verifyEach(std::span<const VerifyItem> items);
  // Ends the connection. Calls after it throw `closed`, those of its Keys too. A second time: nothing.
  void close() noexcept;

  struct Impl;

 private:
  explicit Vault(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// Lives as long as it is held, also when its Vault has been destroyed.
class Key {
 public:
  Key(Key&&) noexcept;
  Key& operator=(Key&&) noexcept;
  ~Key();  // gives the capability back

  const std::string& name() const;
  std::vector<Verb> verbs() const;          // what was granted
  std::chrono::milliseconds lease() const;  // what was given; zero: no end

  Boxed box(const Peer& to, View text);
  Opened open(const Peer& from, View nonce, View box);
  Opened openSealed(View box);
  Signed sign(View message);
  std::vector<Outcome<Boxed>> boxEach(std::span<const BoxItem> items);
  std::vector<Outcome<Opened>> openEach(std::span<const OpenItem> items);
  std::vector<Outcome<Opened>> openSealedEach(std::span<const View> boxes);
  std::vector<Outcome<Signed>> signEach(std::span<const View> messages);
  // At most 64 a call.
  std::vector<FreshNonce> freshNonces(std::string_view domain, uint32_t count);

  // Begins the lease anew. Zero: the longest that policy allows. Returns what was given.
  std::chrono::milliseconds renew(std::chrono::milliseconds lease = {});
  // Gives the capability back now. Calls after it throw `closed`. A second time: nothing.
  void close() noexcept;

  struct Impl;

 private:
  friend class Vault;
  explicit Key(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::client
