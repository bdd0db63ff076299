// cmd_peer.cc - sallyport peer add|list|remove: the [peers] table of the configuration. Part of: cli.
// The daemons learn of a change by `sallyport reload`.
#include <algorithm>

#include "cli/commands.h"
#include "cli/edited_file.h"
#include "cli/load_config.h"
#include "cli/peer_edit.h"
#include "cli/terminal.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

// The configuration file as far as peers are concerned; the error has been printed.
struct PeersFile {
  fs::path path;
  EditedFile file;
  Config config;
};

std::optional<PeersFile> openPeers(const Arguments& arguments) {
  const auto path = findConfigFile(arguments.get("--config"));
  if (path.empty()) {
    fail("no configuration: there is no sallyport.toml here and no /etc/sallyport/sallyport.toml",
         "name one with -c FILE");
    return std::nullopt;
  }
  auto file = EditedFile::open(path, MAX_CONFIG_BYTES);
  if (!file) {
    fail(file.error());
    return std::nullopt;
  }
  auto config = parseVaultAndPeers(file->text(), path);
  if (!config) {
    failConfig(config.error(), path);
    return std::nullopt;
  }
  return PeersFile{path, std::move(*file), std::move(*config)};
}

int finishEdit(PeersFile& peers, const Result<std::string, ConfigError>& text, const std::string& what) {
  if (!text) return failConfig(text.error(), peers.path);
  if (const auto replaced = peers.file.replace(*text); !replaced) return fail(replaced.error());
  say(what + " " + peers.path.string());
  const auto whole = parseConfig(*text, peers.path);
  if (!whole) warn("not yet a valid configuration: " + format(whole.error(), peers.path));
  return EXIT_DONE;
}

}  // namespace

int peerAdd(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (!isName(name)) {
    return fail("`" + name + "` is not a name",
                "names are 1 to 64 letters, digits, `_`, `.`, `-`, and begin with a letter or digit");
  }
  const auto key = parsePublicKey(arguments.words[1]);
  if (!key)
    return fail("peer `" + name + "`: " + key.error(),
                "`sallyport key show NAME` on the peer's host prints its public key");
  auto peers = openPeers(arguments);
  if (!peers) return EXIT_FAILED;
  for (const auto& [other, otherKey] : peers->config.peers) {
    if (other == name && otherKey == *key) {
      say("`" + name + "` is in " + peers->path.string() + " already");
      return EXIT_DONE;
    }
    if (other == name) {
      return fail("`" + name + "` is in " + peers->path.string() + " with another key",
                  "sallyport peer remove " + name);
    }
    if (otherKey == *key) return fail("this key is in " + peers->path.string() + " already, as `" + other + "`");
  }
  return finishEdit(*peers, withPeer(peers->file.text(), name, *key, peers->path), "added `" + name + "` to");
}

int peerList(const Arguments& arguments) {
  const auto path = findConfigFile(arguments.get("--config"));
  const auto text = readConfigText(path);
  if (!text) return failConfig(text.error(), path);
  const auto config = parseVaultAndPeers(*text, path);
  if (!config) return failConfig(config.error(), path);
  for (const auto& [name, key] : config->peers) putLine(name + " " + toBase64(key.span()));
  return finishOutput();
}

int peerRemove(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  auto peers = openPeers(arguments);
  if (!peers) return EXIT_FAILED;
  if (!peers->config.peers.contains(name))
    return fail("no peer `" + name + "` in " + peers->path.string(), "sallyport peer list");
  // Who refers to it can only be told of a file that is right.
  const auto config = parseConfig(peers->file.text(), peers->path);
  if (!config) return failConfig(config.error(), peers->path);
  for (const auto& entry : config->listens) {
    if (std::ranges::find(entry.allow, name) == entry.allow.end()) continue;
    return fail("`" + name + "` is allowed by [[listen]] `" + entry.name + "`, " + peers->path.string() + ":" +
                    std::to_string(entry.line),
                "take it out of `allow` there first");
  }
  for (const auto& entry : config->connects) {
    if (entry.peer != name) continue;
    return fail("`" + name + "` is the peer of [[connect]] `" + entry.name + "`, " + peers->path.string() + ":" +
                    std::to_string(entry.line),
                "remove or change that entry first");
  }
  return finishEdit(*peers, withoutPeer(peers->file.text(), name, peers->path), "removed `" + name + "` from");
}

}  // namespace sallyport::cli
