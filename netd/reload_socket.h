// reload_socket.h - how an operator hands netd a new configuration. Part of: netd (monitor; the client's side is
// cli/daemon_client.cc). After it has given up root, the monitor may be unable to read a configuration that only root
// can. So `sallyport reload` passes a descriptor of the text (a memfd) over [net] admin socket (SOCK_SEQPACKET, mode
// 0600; root, who started netd, and its own user). The answer is one datagram: a byte, then text for people. '1': done;
// '2': done, but some of it waits for a restart; '0': refused, and behind
// a newline what to do about it, if there is more to say. No byte of a peer comes near here.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include <kj/io.h>

#include "common/config.h"
#include "common/event_loop.h"
#include "common/result.h"

namespace sallyport::netd {

struct Reloaded {
  std::string changes;   // for people
  bool restart = false;  // some of it is in force after the next start only
};

struct NotReloaded {
  std::string why;
  std::string hint{};  // may be empty
  static NotReloaded by(const ConfigError& error, const std::filesystem::path& file) {
    return {format(error, file), error.hint};
  }
  std::string text() const { return why + (hint.empty() ? "" : " (" + hint + ")"); }
};

// The whole of a regular file of at most 1 MiB, from its beginning.
Result<std::string, std::string> readWhole(int fd);

class ReloadSocket final : EventLoop::Watcher {
 public:
  // Gets the file's text; answers what changed, or what is wrong.
  using Apply = std::function<Result<Reloaded, NotReloaded>(std::string_view text)>;
  // Binds; before lock-down. Throws kj::Exception.
  ReloadSocket(EventLoop& loop, const std::filesystem::path& path, Apply apply);
  ~ReloadSocket();

 private:
  class Client;
  void onEvents(uint32_t events) override;
  void drop(Client& client);

  EventLoop& loop_;
  Apply apply_;
  uid_t starter_;
  kj::AutoCloseFd listener_;
  std::list<std::unique_ptr<Client>> clients_;
  std::shared_ptr<bool> alive_;
};

}  // namespace sallyport::netd
