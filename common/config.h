// config.h - sallyport.toml as values. Part of: common (vaultd, netd's monitor and the CLI; a worker never reads it).
// The format is docs/man/sallyport.toml.5; relative paths start at the file's folder. Unknown keys, wrong types,
// missing peers and duplicate names are errors with the line. Parsing is pure: it opens no file and resolves no name.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"

namespace sallyport {

// A problem in the file: `message` is for people and names the key; `line` is 1-based, 0 if none applies.
struct ConfigError {
  std::string message;
  unsigned line = 0;
  std::string hint;                       // may be empty
  std::vector<ConfigError> further = {};  // others in the same file, none a consequence of another
};
// The error itself, then the further ones; for those who print.
std::vector<ConfigError> eachOf(const ConfigError& error);

// "HOST:PORT" with a numeric or symbolic host ("[::1]:80", "db.example.com:80"), or "unix:PATH" (then absolute).
struct TcpAddress {
  std::string host;
  uint16_t port = 0;
};
struct UnixAddress {
  std::filesystem::path path;
};
using Address = std::variant<TcpAddress, UnixAddress>;
std::string toString(const Address& address);

struct ChannelService {};  // local programs accept it by name
struct EchoService {};     // each message is returned as it came
using Service = std::variant<Address, ChannelService, EchoService>;

enum class Protocol : uint8_t { Curve, Peer };

// What a connection of `protocol = "peer"` can promise (docs/protocol.md §14).
enum class PeerMode : uint8_t {
  Hard,  // keys of its own for each connection, keyed tags (default)
  Base   // the protocol's text to the letter: forgeable by who knows the plain text, one connection a block
};
inline constexpr uint32_t DEFAULT_MAX_FRAME_BYTES = 16 << 20;
inline constexpr uint32_t DEFAULT_ROTATE_FRAMES = 65536;

// Of an entry with `protocol = "peer"`; both hosts must say the same.
struct PeerFraming {
  PeerMode mode = PeerMode::Hard;
  uint32_t maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;  // the longest payload that is taken
  uint32_t rotateFrames = DEFAULT_ROTATE_FRAMES;  // frames of a direction under one set of keys; 0: no rotation (base)
  bool operator==(const PeerFraming&) const = default;
};

// What to do when a layer of the sandbox doesn't hold.
enum class SandboxRequirement : uint8_t {
  Full,       // refuse to serve when a layer that this kernel offers failed (default)
  Available,  // serve with what could be had; status tells
  None,       // no sandbox at all: for debugging, shown in every status
};

struct ListenEntry {
  std::string name;
  Address address;
  Protocol protocol = Protocol::Curve;
  std::string key;                 // name of a key of the vault
  std::vector<std::string> allow;  // Curve: names of peers, never empty: an entry that allows nobody is an error
  PeerFraming framing;             // Peer
  Service service;
  unsigned line = 0;
};

struct ConnectEntry {
  std::string name;
  std::optional<Address> listen;  // none: programs and `sallyport pipe` only
  Address address;
  Protocol protocol = Protocol::Curve;
  std::string key;
  std::string peer;     // Curve: name of the server in peers
  PeerFraming framing;  // Peer
  unsigned line = 0;
};

// What a program may have done with a key (proto/vault.capnp: Verb).
enum class Verb : uint8_t { Box, Open, Sign, FreshNonce };
inline constexpr size_t VERB_COUNT = 4;
std::string_view name(Verb verb);  // as in the file: "box", "open", "sign", "fresh_nonce"

class VerbSet {
 public:
  constexpr VerbSet() = default;
  constexpr VerbSet(std::initializer_list<Verb> verbs) {
    for (const Verb verb : verbs) add(verb);
  }
  static constexpr VerbSet all() { return {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce}; }
  constexpr void add(Verb verb) { bits_ |= bit(verb); }
  constexpr bool has(Verb verb) const { return (bits_ & bit(verb)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const VerbSet&) const = default;
  constexpr VerbSet operator&(VerbSet other) const { return VerbSet(bits_ & other.bits_); }
  constexpr VerbSet operator|(VerbSet other) const { return VerbSet(bits_ | other.bits_); }

 private:
  constexpr explicit VerbSet(unsigned bits) : bits_(bits) {}
  static constexpr unsigned bit(Verb verb) { return 1U << static_cast<unsigned>(verb); }
  unsigned bits_ = 0;
};

// A [[grant]] as written: names are not resolved yet (common/grants.h does that).
struct GrantEntry {
  std::string name;
  std::string socket;               // "main", or the name of a [[vault_socket]]
  std::vector<std::string> users;   // names, decimal uids, or "*"
  std::vector<std::string> groups;  // names or decimal gids
  std::vector<std::string> keys;
  VerbSet verbs;
  std::vector<std::string> peers;  // names of [peers], or "*"
  uint32_t maxBytes = 0;           // of one text
  uint32_t perSecond = 0;          // 0: no limit
  std::vector<std::string> domains;
  uint32_t leaseS = 0;  // 0: no end
  unsigned line = 0;
};

// A socket for programs beside [vault] socket.
struct VaultSocket {
  std::string name;
  std::filesystem::path path;
  mode_t mode = 0600;
  std::string group;  // a name or a decimal gid; empty: ours
  unsigned line = 0;
};

struct VaultConfig {
  std::filesystem::path keys = "keys";
  std::filesystem::path socket = "run/vault.sock";  // programs (App)
  std::filesystem::path netSocket;                  // netd (Net); default: socket with "-net" before its end
  std::filesystem::path adminSocket;                // operators (Admin); default: socket with "-admin" likewise
  std::string user = "sallyport-vault";             // when started as root
  std::string socketGroup;                          // may use `socket`, besides root and the user; empty: nobody
  std::filesystem::path passphraseFile;             // empty: systemd credential "passphrase", else the terminal
  uint32_t handshakesPerSecond = 100000;            // per key
  uint32_t breakerFailures = 100;                   // failed opens of one caller in a window; 0: no breaker
  uint32_t breakerWindowS = 60;
  uint32_t breakerPauseS = 60;
  std::filesystem::path metrics;  // a Unix socket; empty: no metrics page
  SandboxRequirement requireSandbox = SandboxRequirement::Full;
};

// The audit log. Without a section [audit] there is none.
struct AuditConfig {
  bool enabled = false;
  std::filesystem::path folder = "audit";
  uint32_t files = 8;
  uint32_t fileMiB = 16;
  bool required = false;        // no record, no operation
  bool syncAlways = false;      // durable at the end of each turn; else within a second
  bool refuseWhenFull = false;  // else the oldest file is overwritten
  bool handshakes = false;      // a line for each protocol step; else one a second, entry and outcome
};

inline constexpr unsigned MAX_WORKERS = 63;

struct NetConfig {
  std::filesystem::path socket = "run/net.sock";  // programs
  std::filesystem::path adminSocket;  // `sallyport reload`; default: socket with "-admin" before its extension
  uint32_t workers = 0;               // 0: one per core; see workerCount()
  std::optional<Address> metrics;     // "unix:PATH" or a loopback HOST:PORT; none: no metrics page
  std::string user = "sallyport-net";
  std::string socketGroup;  // may use `socket`, besides root and who started netd; empty: nobody
  SandboxRequirement requireSandbox = SandboxRequirement::Full;
};

// Totals of the whole netd; it gives each worker its share.
struct LimitsConfig {
  uint32_t halfOpen = 8192;
  uint32_t connections = 32768;
  uint32_t halfOpenPerSource = 4096;
  uint32_t connectionsPerSource = 32768;
  uint32_t handshakeTimeoutMs = 5000;
  uint32_t dialTimeoutMs = 5000;
  uint32_t idleTimeoutS = 0;        // 0: none
  uint32_t acceptTimeoutMs = 5000;  // how long a channel waits for a local program to accept it
  uint32_t bufferMiB = 256;
  uint32_t drainTimeoutMs = 10000;
  uint32_t keepaliveS = 60;         // TCP keepalive idle time; 0: off
  uint32_t userTimeoutMs = 120000;  // of a peer that acknowledges nothing; 0: as long as the kernel tries
};

// [key.NAME]: how long a version of the key is active, and how long it still opens after that.
struct RotationRule {
  int64_t everyS = 0;  // 0: only by hand
  int64_t graceS = 7 * 86'400;
};

// --- [token.NAME]: a PKCS#11 module and the one token of it that an hsmd of its own logs in to -----------------------

// Where the PIN comes from; never from the file itself, an argument or the environment.
struct PinCredential {  // of systemd: LoadCredential=, LoadCredentialEncrypted=
  std::string name;
};
struct PinFile {  // mode 0400 or 0600, of root or the token's user
  std::filesystem::path path;
};
struct PinDescriptor {  // inherited, read to its end and closed
  int fd = -1;
};
struct PinAsk {};  // locked until an operator gives it
using PinSource = std::variant<PinAsk, PinCredential, PinFile, PinDescriptor>;

// What a module may do once it is logged in: sandbox/hsmd-*.policy.
enum class ModuleProfile : uint8_t { Auto, SoftHsm, Nss, Tpm2, Pcscd, YubiHsmConnector, Network, Custom };
std::string_view name(ModuleProfile profile);  // as in the file: "auto", "softhsm", "yubihsm-connector"
// What Auto means for this module, by its file's name. Custom if it isn't known.
ModuleProfile profileOf(const std::filesystem::path& module);

struct TokenConfig {
  std::string name;
  std::filesystem::path module;  // absolute
  std::string uri;               // as written; parseTokenUri() takes it
  PinSource pin;
  std::string initArgs;                           // CK_C_INITIALIZE_ARGS.LibraryParameters, for NSS
  ModuleProfile profile = ModuleProfile::Custom;  // never Auto
  std::map<std::string, std::string, std::less<>> environment;
  std::string user = "sallyport-hsm";  // when started as root
  uint32_t maxSessions = 4;
  uint32_t workers = 2;  // threads with a session each; 1 for NSS without copies
  // Of one call; then the module's process is ended and started again. Below handshakeTimeoutMs, so that a handshake is
  // refused for the token's sake and not as late.
  uint32_t deadlineMs = 4000;
  uint32_t memoryMiB = 64;   // the same when it has grown beyond this
  bool sessionCopy = false;  // work with a copy of each key in the session: NSS is faster so
  bool presenceAlways = false;
  uint32_t recheckMinutes = 5;  // with presence = "always"
  std::vector<std::filesystem::path> readPaths, writePaths;
  SandboxRequirement requireSandbox = SandboxRequirement::Full;
  unsigned line = 0;
};

struct Config {
  std::filesystem::path file;  // as given, made absolute
  VaultConfig vault;
  NetConfig net;
  AuditConfig audit;
  LimitsConfig limits;
  std::vector<ListenEntry> listens;
  std::vector<ConnectEntry> connects;
  std::vector<VaultSocket> vaultSockets;
  std::vector<GrantEntry> grants;
  std::set<std::string, std::less<>> honeyKeys;  // [key.NAME] honey = true: any use is an alarm
  std::map<std::string, PublicKey, std::less<>> peers;
  std::map<std::string, SigningKey, std::less<>> signers;      // whose signatures `sallyport verify` knows by name
  std::map<std::string, RotationRule, std::less<>> rotations;  // by the key's name
  std::map<std::string, TokenConfig, std::less<>> tokens;
  std::vector<std::string> warnings;  // legal but doubtful, for `sallyport check` and the log

  const ListenEntry* findListen(std::string_view name) const;
  const ConnectEntry* findConnect(std::string_view name) const;
};

// `file` is used for relative paths and messages only; `text` is the content. Reports up to MAX_CONFIG_ERRORS errors.
Result<Config, ConfigError> parseConfig(std::string_view text, const std::filesystem::path& file);
// [vault], [peers], [key.NAME] and [token.NAME] alone, whatever is wrong in the other sections: making keys and naming
// peers is how a file whose entries refer to them becomes right.
Result<Config, ConfigError> parseVaultAndPeers(std::string_view text, const std::filesystem::path& file);
// Reads and parses. An unreadable file is a ConfigError too.
Result<Config, ConfigError> loadConfig(const std::filesystem::path& file);
// The text alone, at most MAX_CONFIG_BYTES + 1 bytes of it (one more than parseConfig takes). For `reload`.
Result<std::string, ConfigError> readConfigText(const std::filesystem::path& file);
// "sallyport.toml:12: unknown key `prot` in [[listen]]"
std::string format(const ConfigError& error, const std::filesystem::path& file);

// -c FILE, or sallyport.toml here, or /etc/sallyport/sallyport.toml: the first that exists. `given` may be empty.
// Empty if there is none: loadConfig then says so.
std::filesystem::path findConfigFile(const std::filesystem::path& given);

// --- the rules that others share -------------------------------------------------------------------------------------

inline constexpr size_t MAX_CONFIG_BYTES = 1 << 20;
inline constexpr size_t MAX_CONFIG_ERRORS = 20;
inline constexpr size_t MAX_UNIX_PATH_BYTES = 107;  // sun_path without its NUL
// A text that a program has boxed, opened or signed: what fits a message of 64 KiB beside the rest of it.
inline constexpr uint32_t MAX_TEXT_BYTES = 60 * 1024;
inline constexpr size_t MAX_VAULT_SOCKETS = 16;
inline constexpr size_t MAX_TOKENS = 8;
inline constexpr uint32_t OVERFLOW_ID = 65534;  // the uid or gid that the kernel shows for one it can't map here
inline constexpr std::string_view MAIN_SOCKET = "main";  // what a [[grant]] calls [vault] socket

// Names of entries, keys and peers: [A-Za-z0-9][A-Za-z0-9_.-]{0,63}. So a name is always a safe file name.
bool isName(std::string_view text);
// 1 to 8 letters, digits, `_`, `.`, `-`, and no name that a nonce of the vault's own boxes begins with.
bool isNonceDomain(std::string_view text);
// Base64 of 32 bytes that are a usable X25519 public key; the error says why not, without a prefix.
Result<PublicKey, std::string> parsePublicKey(std::string_view base64);
// Base64 of 32 bytes that are an Ed25519 public key of the right order.
Result<SigningKey, std::string> parseSigningKey(std::string_view base64);
// "HOST:PORT" or "unix:PATH"; a relative path starts at `base`, which is absolute.
Result<Address, ConfigError> parseAddress(std::string_view text, const std::filesystem::path& base);
// Only this host can connect to it: 127.0.0.0/8, ::1, localhost, or a Unix socket.
bool isLocal(const Address& address);
// Not both can be listened on: the same one, or a wildcard and another address on one port. [::] stands for IPv4 too,
// as Linux has it; 0.0.0.0 doesn't stand for IPv6.
bool collide(const Address& one, const Address& other);
// How many workers netd has here.
unsigned workerCount(const NetConfig& net);
// The candidate that `word` was probably meant to be; empty if none is near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates);

}  // namespace sallyport
