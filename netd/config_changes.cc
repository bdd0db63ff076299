// config_changes.cc - see config_changes.h.
#include "netd/config_changes.h"

#include <cstring>
#include <map>
#include <type_traits>

namespace sallyport::netd {

namespace {

// Name to everything that matters of the thing, as one text to compare.
using Described = std::map<std::string, std::string>;

std::string describe(const Service& service) {
  if (const auto* address = std::get_if<Address>(&service)) return toString(*address);
  return std::holds_alternative<ChannelService>(service) ? "channel" : "echo";
}

std::string describe(Protocol protocol, const PeerFraming& framing) {
  if (protocol == Protocol::Curve) return "curve";
  return std::string(framing.mode == PeerMode::Hard ? "hard" : "base") + "\n" + std::to_string(framing.maxFrameBytes) +
         "\n" + std::to_string(framing.rotateFrames);
}

Described listens(const Config& config) {
  Described result;
  for (const ListenEntry& entry : config.listens) {
    std::string& text = result[entry.name];
    text = toString(entry.address) + "\n" + entry.key + "\n" + describe(entry.service) + "\n" +
           describe(entry.protocol, entry.framing);
    for (const auto& peer : entry.allow) text += "\n" + peer;
  }
  return result;
}

Described connects(const Config& config) {
  Described result;
  for (const ConnectEntry& entry : config.connects) {
    result[entry.name] = toString(entry.address) + "\n" + entry.key + "\n" + entry.peer + "\n" +
                         describe(entry.protocol, entry.framing) + "\n" + (entry.listen ? toString(*entry.listen) : "");
  }
  return result;
}

Described peers(const Config& config) {
  Described result;
  for (const auto& [name, key] : config.peers) result[name] = toBase64(key.span());
  return result;
}

void append(std::string& text, const std::string& part) { text += (text.empty() ? "" : ", ") + part; }

void compare(std::string& text, const std::string& what, const Described& before, const Described& after) {
  for (const auto& [name, description] : after) {
    const auto known = before.find(name);
    if (known == before.end())
      append(text, what + " added: " + name);
    else if (known->second != description)
      append(text, what + " changed: " + name);
  }
  for (const auto& [name, description] : before) {
    if (!after.contains(name)) append(text, what + " removed: " + name);
  }
}

}  // namespace

bool needsRestart(const Config& before, const Config& after) {
  const auto metrics = [](const NetConfig& net) { return net.metrics ? toString(*net.metrics) : ""; };
  return before.net.socket != after.net.socket || before.net.adminSocket != after.net.adminSocket ||
         before.net.workers != after.net.workers || before.net.user != after.net.user ||
         before.net.socketGroup != after.net.socketGroup || before.vault.netSocket != after.vault.netSocket ||
         metrics(before.net) != metrics(after.net);
}

std::string describeChanges(const Config& before, const Config& after) {
  std::string text;
  compare(text, "peer", peers(before), peers(after));
  compare(text, "listen", listens(before), listens(after));
  compare(text, "connect", connects(before), connects(after));
  static_assert(std::has_unique_object_representations_v<LimitsConfig>);
  if (std::memcmp(&before.limits, &after.limits, sizeof(LimitsConfig)) != 0) append(text, "limits changed");
  if (needsRestart(before, after)) append(text, "sockets, workers and user change with the next restart");
  return text.empty() ? "entries, limits and peers are as before" : text;
}

}  // namespace sallyport::netd
