// cmd_pipe.cc - sallyport pipe NAME: a channel on standard input and output, as `ssh -W` does. Part of: cli.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "cli/channel_pump.h"
#include "cli/commands.h"
#include "cli/daemon_client.h"
#include "cli/load_config.h"
#include "cli/terminal.h"
#include "cli/wire_pipe.h"
#include "common/log.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::cli {
namespace {

constexpr const char* CLOSED_UNHEARD =
    "the other side closed before it said anything: perhaps it has another block or mode for this entry, or can't "
    "reach its service; its log says which";

bool isPeer(const ConnectEntry* entry) { return entry != nullptr && entry->protocol == Protocol::Peer; }

// What the other side closes for, or our vault refuses, depends on the protocol.
std::string closedHint(const ConnectEntry* entry) {
  if (!isPeer(entry)) return "is our public key in its [peers] and `allow`, and its key in ours?";
  return "is it an entry of the peer protocol in the same mode, with the same block as the other party? `sallyport key "
         "show " +
         entry->key + "` prints the fingerprint";
}

std::string faultHint(wire::DropReason reason, const ConnectEntry* entry) {
  using wire::DropReason;
  switch (reason) {
    case DropReason::SameParty:
      return "one host is party A of a block and the other B; `sallyport key show " +
             (entry == nullptr ? "KEY" : entry->key) + "` tells which, here and there";
    case DropReason::BadPreamble:
    case DropReason::BadLength:
    case DropReason::BadMagic:
      return std::string("does `address` lead to an entry of ") +
             (isPeer(entry) ? "the peer protocol in the same mode?" : "curve_tun?");
    case DropReason::BadBox:
    case DropReason::BadContent: return "is its key in our [peers] the one that it has?";
    case DropReason::PeerRevoked: return "a reload has changed the entry or its key meanwhile: try again";
    default: return "`sallyport status` tells more";
  }
}

// `reason`: netd's name of the fault.
int failHandshake(const std::string& name, const ConnectEntry* entry, std::string_view reason) {
  const auto known = wire::dropReasonNamed(reason);
  if (!known || known == wire::DropReason::ClosedInHandshake || known == wire::DropReason::TransportError)
    return fail("`" + name + "`: the other side closed during the handshake", closedHint(entry));
  return fail(
      "`" + name + "`: the handshake failed: " + std::string(reason) + ": " + std::string(wire::describe(*known)),
      faultHint(*known, entry));
}

int failVaultRefused(const std::string& name, const ConnectEntry* entry) {
  if (!isPeer(entry)) return fail("`" + name + "`: the vault made no vouch", "`sallyport status` tells why");
  const std::string error = "`" + name + "`: the vault gave no keys of the block `" + entry->key + "`";
  if (entry->framing.mode == PeerMode::Base)
    return fail(error,
                "in base mode a block serves one connection: `sallyport status` tells if it was used; pair anew then");
  return fail(error, "`sallyport status` tells why");
}

// It may be our own vault that didn't answer netd.
int failTimedOut(EventLoop& loop, proto::Network::Client network, const std::string& name) {
  const std::string error = "`" + name + "`: no channel in time";
  const auto answer = answerOf(loop, network.statusRequest().send());
  const std::string vault = answer ? sanitized(answer->getStatus().getVault().cStr()) : "connected";
  if (vault == "connected") return fail(error, "is the other side up?");
  return fail(error + ", and netd has no connection to vaultd (" + vault + ")",
              "start vaultd on this host; `sallyport status` tells more");
}

// Why there is no channel, and what to do about it. `entry` is null if our configuration doesn't have it.
int failRefused(EventLoop& loop, proto::Network::Client network, proto::NetRefusal refusal, std::string_view reason,
                const std::string& name, const ConnectEntry* entry) {
  switch (refusal) {
    case proto::NetRefusal::UNKNOWN_NAME:
      return fail("netd has no [[connect]] entry `" + name + "`", "add it, then `sallyport reload`");
    case proto::NetRefusal::TIMED_OUT: return failTimedOut(loop, network, name);
    case proto::NetRefusal::UNREACHABLE:
      return fail("`" + name + "`: the other side can't be reached", "check `address`, and that the other side is up");
    case proto::NetRefusal::HANDSHAKE_FAILED: return failHandshake(name, entry, reason);
    case proto::NetRefusal::VAULT_REFUSED: return failVaultRefused(name, entry);
    case proto::NetRefusal::SHUTTING_DOWN: return fail("netd is shutting down");
    case proto::NetRefusal::WRONG_PROTOCOL:
      return fail("`" + name + "` doesn't speak the peer protocol", "leave --protocol out, or set it in the entry");
    case proto::NetRefusal::RESERVED_CODE:
    case proto::NetRefusal::TOO_MANY_OBJECTS:
    case proto::NetRefusal::NOT_A_CHANNEL:
    case proto::NetRefusal::TOO_BIG:
    case proto::NetRefusal::CLOSED:
    case proto::NetRefusal::FAILED:
    case proto::NetRefusal::UNSPECIFIED:
    default: break;
  }
  return fail("`" + name + "`: netd refused, code " + std::to_string(static_cast<unsigned>(refusal)),
              "sallyport status");
}

// What would let this user use netd's socket.
std::string hintForUser(const Config& config) {
  if (config.net.socketGroup.empty()) return "`socket_group` in [net] lets a group of users use it, after a restart";
  return "the members of `" + config.net.socketGroup + "` may: usermod -aG " + config.net.socketGroup +
         " USER, and log in again";
}

// Waits for the channel, then copies until both directions have ended.
template <typename Answer>
int pump(EventLoop& loop, proto::Network::Client network, Answer&& asked, uint32_t timeoutMs, const std::string& name,
         const ConnectEntry* entry, const PumpOptions& options) {
  auto answer = answerOf(loop, kj::mv(asked), timeoutMs + ANSWER_TIMEOUT_MS);
  if (!answer) return fail("netd " + answer.error());
  const auto outcome = answer->getOutcome();
  if (outcome.isRefused())
    return failRefused(loop, network, outcome.getRefused(), outcome.getReason().cStr(), name, entry);
  ChannelPump channelPump(loop, outcome.getChannel(), options);
  const auto problem = loop.await(channelPump.run());
  if (problem.empty()) return EXIT_DONE;
  // All that a party with another block sees of us, and we of it.
  const bool unheard = isPeer(entry) && channelPump.closedUnheard();
  return fail("`" + name + "`: " + problem, unheard ? CLOSED_UNHEARD : channelPump.hint());
}

// --protocol against the entry of that table. The error has been printed.
bool speaksAsAsked(const Arguments& arguments, const std::string& table, Protocol protocol) {
  const bool peer = protocol == Protocol::Peer;
  if (!arguments.has("--protocol") || (arguments.get("--protocol") == "peer") == peer) return true;
  fail(table + " `" + arguments.words[0] + "` speaks " + (peer ? "the peer protocol" : "curve_tun"),
       "leave --protocol out, or set `protocol` in the entry");
  return false;
}

}  // namespace

int pipeChannel(const Arguments& arguments) {
  PumpOptions options;
  options.messages = arguments.has("--messages");
  if (arguments.has("--wait")) {
    const auto text = arguments.get("--wait");
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), options.waitS);
    if (fault != std::errc() || end != text.data() + text.size() || options.waitS > 86400) {
      return failUsage("--wait needs a number of seconds", "0 to 86400");
    }
  }
  if (arguments.has("--wire") && (options.messages || arguments.has("--wait")))
    return failUsage("--wire carries the bytes as they are: no --messages and no --wait", "leave them out");
  if (arguments.has("--wait") && !options.messages)
    return failUsage("--wait belongs to --messages", "a stream ends when both sides have ended it");
  if (arguments.has("--protocol") && arguments.get("--protocol") != "peer" && arguments.get("--protocol") != "curve")
    return failUsage("--protocol needs `curve` or `peer`", "left out, it is the entry's own");
  const auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;
  const auto& name = arguments.words[0];
  if (arguments.has("--wire")) {
    const ListenEntry* listen = config->findListen(name);
    if (listen != nullptr && !speaksAsAsked(arguments, "[[listen]]", listen->protocol)) return EXIT_FAILED;
    return pipeWire(*config, name);
  }
  const ConnectEntry* entry = config->findConnect(name);
  if (entry != nullptr && !speaksAsAsked(arguments, "[[connect]]", entry->protocol)) return EXIT_FAILED;
  const bool peer = isPeer(entry);

  if (peer) options.maxMessageBytes = std::min<size_t>(entry->framing.maxFrameBytes, MAX_FRAMED_BYTES);
  options.messagesEnd = options.messages && peer && entry->framing.mode == PeerMode::Hard;
  // An end that will come is waited for; where there is none, silence has to do.
  if (options.messagesEnd && !arguments.has("--wait")) options.waitS = 0;

  EventLoop loop;
  auto client = DaemonClient::connect(loop, config->net.socket);
  if (!client) {
    const bool refused = ::access(config->net.socket.c_str(), W_OK) != 0 && errno == EACCES;
    return fail("netd " + client.error().message, refused ? hintForUser(*config) : client.error().hint);
  }
  auto network = (*client)->as<proto::Network>();
  const uint32_t timeoutMs = config->limits.dialTimeoutMs + config->limits.handshakeTimeoutMs;
  // Message by message there is no difference: in the peer protocol a frame is one.
  if (peer && !options.messages) {
    auto request = network.connectPeerRequest();
    request.setName(name.c_str());
    return pump(loop, network, request.send(), timeoutMs, name, entry, options);
  }
  auto request = network.connectRequest();
  request.setName(name.c_str());
  request.setTimeoutMs(timeoutMs);
  return pump(loop, network, request.send(), timeoutMs, name, entry, options);
}

}  // namespace sallyport::cli
