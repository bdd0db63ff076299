// reload_socket.cc - see reload_socket.h.
#include "netd/reload_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include <kj/debug.h>

#include "common/fd_passing.h"
#include "common/rpc.h"

namespace sallyport::netd {

namespace {

constexpr size_t MAX_CLIENTS = 8;
constexpr off_t MAX_CONFIG_BYTES = 1 << 20;
constexpr uint32_t CLIENT_TIMEOUT_MS = 5000;

}  // namespace

// By pread, and of nothing but a file: a pipe or a device could keep us waiting.
Result<std::string, std::string> readWhole(int fd) {
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return refuse(std::string("not a regular file"));
  if (info.st_size > MAX_CONFIG_BYTES) return refuse(std::string("a configuration has at most 1 MiB"));
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = pread(fd, text.data() + have, text.size() - have, static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

class ReloadSocket::Client final : EventLoop::Watcher {
 public:
  Client(ReloadSocket& owner, kj::AutoCloseFd socket)
      : owner_(owner),
        socket_(kj::mv(socket)),
        timeout_(owner.loop_.timer()
                     .afterDelay(CLIENT_TIMEOUT_MS * kj::MILLISECONDS)
                     .then([this] { owner_.drop(*this); })
                     .eagerlyEvaluate(nullptr)) {
    owner_.loop_.add(socket_, EPOLLIN, *this);
  }
  ~Client() { owner_.loop_.remove(socket_, *this); }

 private:
  void onEvents(uint32_t) override {
    std::array<std::byte, 64> ignored;
    auto datagram = receiveDatagram(socket_, ignored);
    if (!datagram) return;
    if (datagram->fdCount == 1) {
      const auto text = readWhole(datagram->fds[0]);
      const auto outcome = text ? owner_.apply_(*text) : refuse(NotReloaded{text.error()});
      std::string answer;
      if (outcome)
        answer = (outcome->restart ? "2" : "1") + outcome->changes;
      else
        answer = "0" + outcome.error().why + (outcome.error().hint.empty() ? "" : "\n" + outcome.error().hint);
      sendDatagram(socket_, asBytes(answer));
    }
    owner_.drop(*this);
  }

  ReloadSocket& owner_;
  kj::AutoCloseFd socket_;
  kj::Promise<void> timeout_;
};

ReloadSocket::ReloadSocket(EventLoop& loop, const std::filesystem::path& path, Apply apply)
    : loop_(loop),
      apply_(std::move(apply)),
      starter_(getuid()),
      listener_(listenUnix(path, 0600, 16, SOCK_SEQPACKET)),
      alive_(std::make_shared<bool>(true)) {
  loop_.add(listener_, EPOLLIN, *this);
}

ReloadSocket::~ReloadSocket() {
  *alive_ = false;
  loop_.remove(listener_, *this);
}

void ReloadSocket::onEvents(uint32_t) {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  kj::AutoCloseFd socket(fd);
  const uid_t uid = peerCredentials(socket).uid;
  if (clients_.size() >= MAX_CLIENTS || (uid != 0 && uid != starter_ && uid != getuid())) return;
  clients_.push_back(std::make_unique<Client>(*this, kj::mv(socket)));
}

void ReloadSocket::drop(Client& client) {
  loop_.defer([this, gone = &client, alive = alive_] {
    if (*alive) std::erase_if(clients_, [gone](const auto& other) { return other.get() == gone; });
  });
}

}  // namespace sallyport::netd
