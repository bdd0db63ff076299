// Goal: any text is a configuration or an error with a message; nothing else comes of it, and nothing is opened.
#include "common/config.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::filesystem::path file = "/etc/sallyport/sallyport.toml";
  if (const auto config = parseConfig(text, file)) {
    for (const ListenEntry& entry : config->listens) {
      CHECK(isName(entry.name) && isName(entry.key) && !entry.allow.empty());
      CHECK(config->findListen(entry.name) == &entry);
      for (const std::string& peer : entry.allow) CHECK(config->peers.contains(peer));
    }
    for (const ConnectEntry& entry : config->connects) CHECK(config->peers.contains(entry.peer) && isName(entry.name));
    CHECK(config->vault.socket.is_absolute() && config->vault.keys.is_absolute() && config->net.socket.is_absolute());
  } else {
    CHECK(!config.error().message.empty() && !format(config.error(), file).empty());
  }
  static_cast<void>(parseVaultAndPeers(text, file));
  const std::string_view line = text.substr(0, text.find('\n'));
  static_cast<void>(parsePublicKey(line));
  if (const auto address = parseAddress(line, "/etc/sallyport")) {
    static_cast<void>(isLocal(*address));
    // What we print, we read.
    CHECK(parseAddress(toString(*address), "/etc/sallyport").has_value());
  }
  return 0;
}
