// config_peer.cc - entries with `protocol = "peer"` in sallyport.toml. Part of: common, and private to the parser.
// Pure. See docs/protocol.md §14: what the key's block is, and why base mode is off unless an entry asks for it. What
// must never happen here: an entry that would be weaker than it says.
#include <limits>
#include <map>

#include "common/config_section.h"

namespace sallyport::config {

namespace {

constexpr uint32_t LEAST_FRAME_BYTES = 64;
constexpr uint32_t MOST_ROTATE_FRAMES = 1'000'000'000;

void refuseKeysOfPeer(const Section& section) {
  for (const auto key : PEER_KEYS) {
    if (section.find(key) != nullptr) section.fail(key, "belongs to protocol = \"peer\"");
  }
}

}  // namespace

void readFraming(const Section& section, Protocol protocol, std::string_view other, PeerFraming& framing) {
  if (protocol != Protocol::Peer) return refuseKeysOfPeer(section);
  if (section.find(other) != nullptr) {
    section.fail(other, "has no meaning with protocol = \"peer\"",
                 "who holds the block of `key` is the peer: remove it");
  }
  bool base = false;
  section.choice("mode", base, "base", "hard");
  if (base) {
    framing.mode = PeerMode::Base;
    framing.rotateFrames = 0;  // what the protocol's text knows
  }
  section.number("max_frame_bytes", framing.maxFrameBytes, LEAST_FRAME_BYTES, std::numeric_limits<uint32_t>::max());
  section.number("rotate_frames", framing.rotateFrames, base ? 0 : 1, MOST_ROTATE_FRAMES);
}

// A tunnel must be able to tell a cut stream from an ended one (docs/protocol.md §5), and base mode can't.
void refuseBaseTunnel(const Section& section, std::string_view key, const PeerFraming& framing) {
  if (framing.mode != PeerMode::Base) return;
  section.fail(key, "would be a tunnel, and mode = \"base\" doesn't tell a cut stream from an ended one",
               "base mode serves channels of programs: service = \"channel\" or \"echo\", and no `listen`");
}

void checkBlocks(const Section& root, Config& config) {
  struct User {
    std::string title;
    unsigned line;
    Protocol protocol;
    PeerMode mode;
  };
  std::map<std::string, std::vector<User>> users;  // by the key's name
  for (const auto& entry : config.listens)
    users[entry.key].push_back({"[[listen]] " + ticked(entry.name), entry.line, entry.protocol, entry.framing.mode});
  for (const auto& entry : config.connects)
    users[entry.key].push_back({"[[connect]] " + ticked(entry.name), entry.line, entry.protocol, entry.framing.mode});
  for (const auto& [key, entries] : users) {
    if (key.empty()) continue;  // told of already
    const User& first = entries.front();
    for (const User& user : entries) {
      const bool base = user.protocol == Protocol::Peer && user.mode == PeerMode::Base;
      if (base) {
        config.warnings.push_back(user.title +
                                  ": mode = \"base\" is forgeable by who knows the text of a frame, doesn't tell a cut "
                                  "stream from an ended one, and serves one connection for each block of `" +
                                  key + "`");
      }
      if (&user == &first) continue;
      if (user.protocol != first.protocol) {
        root.reader().fail(
            user.line, user.title + ": key " + ticked(key) + " is used by " + first.title + " with another protocol",
            "a key serves one protocol: give each its own");
      } else if (base || (first.protocol == Protocol::Peer && first.mode == PeerMode::Base)) {
        root.reader().fail(user.line,
                           user.title + ": key " + ticked(key) + " is used by " + first.title +
                               ", and a block in base mode serves one connection",
                           "give each entry in base mode a key of its own");
      }
    }
  }
}

}  // namespace sallyport::config
