// metrics.cc - see metrics.h.
#include "netd/metrics.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "netd/channel_service.h"
#include "netd/worker.h"

namespace sallyport::netd {

namespace {
constexpr size_t MAX_REQUEST_BYTES = 4096;
constexpr size_t MAX_CLIENTS = 16;
constexpr uint32_t CLIENT_TIMEOUT_MS = 5000;
constexpr uint32_t ACCEPT_PAUSE_MS = 100;
}  // namespace

class MetricsServer::Client final : EventLoop::Watcher {
 public:
  Client(MetricsServer& server, kj::AutoCloseFd socket)
      : server_(server),
        socket_(kj::mv(socket)),
        timeout_(server.worker_.loop()
                     .timer()
                     .afterDelay(CLIENT_TIMEOUT_MS * kj::MILLISECONDS)
                     .then([this] { server_.drop(*this); })
                     .eagerlyEvaluate(nullptr)) {
    server_.worker_.loop().add(socket_, EPOLLIN, *this);
  }
  ~Client() { server_.worker_.loop().remove(socket_, *this); }

 private:
  void onEvents(uint32_t) override {
    if (answer_.empty())
      readRequest();
    else
      writeAnswer();
  }

  void readRequest() {
    std::array<char, MAX_REQUEST_BYTES> buffer;
    const ssize_t got = recv(socket_, buffer.data(), buffer.size() - request_.size(), MSG_DONTWAIT);
    if (got <= 0) {
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
      return server_.drop(*this);
    }
    request_.append(buffer.data(), static_cast<size_t>(got));
    if (request_.find("\r\n\r\n") == std::string::npos && request_.find("\n\n") == std::string::npos) {
      if (request_.size() >= MAX_REQUEST_BYTES) server_.drop(*this);
      return;
    }
    const bool known = request_.starts_with("GET /metrics ") || request_.starts_with("GET / ");
    const std::string body = known ? server_.page() : "not found: try /metrics\n";
    answer_ =
        std::string("HTTP/1.1 ") + (known ? "200 OK" : "404 Not Found") +
        "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\nConnection: close\r\n\r\n" + body;
    writeAnswer();
  }

  void writeAnswer() {
    while (sent_ < answer_.size()) {
      const ssize_t sent = send(socket_, answer_.data() + sent_, answer_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return server_.worker_.loop().modify(socket_, EPOLLOUT, *this);
        break;
      }
      sent_ += static_cast<size_t>(sent);
    }
    shutdown(socket_, SHUT_WR);
    server_.drop(*this);
  }

  MetricsServer& server_;
  kj::AutoCloseFd socket_;
  std::string request_;
  std::string answer_;
  size_t sent_ = 0;
  kj::Promise<void> timeout_;
};

MetricsServer::MetricsServer(Worker& worker, kj::AutoCloseFd listener)
    : worker_(worker), listener_(kj::mv(listener)), alive_(std::make_shared<bool>(true)) {
  worker_.loop().add(listener_, EPOLLIN, *this);
}

MetricsServer::~MetricsServer() {
  *alive_ = false;
  if (!paused_) worker_.loop().remove(listener_, *this);
}

void MetricsServer::onEvents(uint32_t events) {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    const bool dead = (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (dead || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) pause();
    return;
  }
  kj::AutoCloseFd socket(fd);
  if (clients_.size() < MAX_CLIENTS) clients_.push_back(std::make_unique<Client>(*this, kj::mv(socket)));
}

// Out of descriptors, or the socket is dead: a page of numbers is worth less than a spinning worker.
void MetricsServer::pause() {
  worker_.loop().remove(listener_, *this);
  paused_ = true;
  resuming_ = worker_.loop()
                  .timer()
                  .afterDelay(ACCEPT_PAUSE_MS * kj::MILLISECONDS)
                  .then([this] {
                    paused_ = false;
                    worker_.loop().add(listener_, EPOLLIN, *this);
                  })
                  .eagerlyEvaluate(nullptr);
}

void MetricsServer::drop(Client& client) {
  // The client is the caller.
  worker_.loop().defer([this, gone = &client, alive = alive_] {
    if (*alive) std::erase_if(clients_, [gone](const auto& other) { return other.get() == gone; });
  });
}

std::string MetricsServer::page() const {
  std::string text;
  const auto& pages = worker_.allStats();
  const auto add = [&text](std::string_view name, std::string_view labels, uint64_t value) {
    text.append("sallyport_net_").append(name).append(labels).append(" ").append(std::to_string(value)).append("\n");
  };
  for (size_t i = 0; i < COUNTER_COUNT; ++i) {
    const std::string name = std::string(COUNTERS[i].name) + (COUNTERS[i].gauge ? "" : "_total");
    text.append("# TYPE sallyport_net_").append(name).append(COUNTERS[i].gauge ? " gauge\n" : " counter\n");
    for (size_t worker = 0; worker < pages.size(); ++worker) {
      add(name, "{worker=\"" + std::to_string(worker) + "\"}", pages[worker]->get(static_cast<Counter>(i)));
    }
  }
  text.append("# TYPE sallyport_net_drops_total counter\n");
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) {
    const auto reason = static_cast<wire::DropReason>(i);
    uint64_t total = 0;
    for (const Stats* page : pages) total += page->get(reason);
    add("drops_total", "{reason=\"" + std::string(wire::name(reason)) + "\"}", total);
  }
  if (worker_.channels() != nullptr) {
    const auto& rpc = worker_.channels()->rpcStats();
    text.append("# TYPE sallyport_net_rpc_cut_off_clients_total counter\n");
    for (size_t i = 1; i < CUT_OFF_COUNT; ++i) {
      add("rpc_cut_off_clients_total", "{reason=\"" + std::string(name(static_cast<CutOff>(i))) + "\"}", rpc.cutOff[i]);
    }
  }
  return text;
}

}  // namespace sallyport::netd
