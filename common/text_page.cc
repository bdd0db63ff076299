// text_page.cc - see text_page.h.
#include "common/text_page.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace sallyport {

namespace {
constexpr size_t MAX_REQUEST_BYTES = 4096;
constexpr size_t MAX_CLIENTS = 16;
constexpr uint32_t CLIENT_TIMEOUT_MS = 5000;
constexpr uint32_t ACCEPT_PAUSE_MS = 100;
}  // namespace

class TextPageServer::Client final : EventLoop::Watcher {
 public:
  Client(TextPageServer& server, uint64_t ownNumber, kj::AutoCloseFd socket)
      : number(ownNumber),
        server_(server),
        socket_(kj::mv(socket)),
        timeout_(server.loop_.timer()
                     .afterDelay(CLIENT_TIMEOUT_MS * kj::MILLISECONDS)
                     .then([this] { server_.drop(*this); })
                     .eagerlyEvaluate(nullptr)) {
    server_.loop_.add(socket_, EPOLLIN, *this);
  }
  ~Client() { server_.loop_.remove(socket_, *this); }

  const uint64_t number;

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
    const bool head = request_.starts_with("HEAD ");
    if (!isPage())
      answer("404 Not Found", "", "not found: try /metrics\n", head);
    else if (!head && !request_.starts_with("GET "))
      answer("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD\n", false);
    else
      answer("200 OK", "", server_.page_(), head);
  }

  // `headers`: lines of their own. `bodiless`: the length alone is told.
  void answer(std::string_view status, std::string_view headers, std::string_view body, bool bodiless) {
    answer_.append("HTTP/1.1 ").append(status).append("\r\n").append(headers);
    answer_.append("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: ")
        .append(std::to_string(body.size()))
        .append("\r\nConnection: close\r\n\r\n");
    if (!bodiless) answer_.append(body);
    writeAnswer();
  }

  // "/metrics" or "/", with or without a query.
  bool isPage() const {
    const auto from = request_.find(' ') + 1;
    const std::string path = request_.substr(from, request_.find_first_of(" ?\r\n", from) - from);
    return path == "/metrics" || path == "/";
  }

  void writeAnswer() {
    while (sent_ < answer_.size()) {
      const ssize_t sent = send(socket_, answer_.data() + sent_, answer_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return server_.loop_.modify(socket_, EPOLLOUT, *this);
        break;
      }
      sent_ += static_cast<size_t>(sent);
    }
    shutdown(socket_, SHUT_WR);
    server_.drop(*this);
  }

  TextPageServer& server_;
  kj::AutoCloseFd socket_;
  std::string request_;
  std::string answer_;
  size_t sent_ = 0;
  kj::Promise<void> timeout_;
};

TextPageServer::TextPageServer(EventLoop& loop, kj::AutoCloseFd listener, Page page)
    : loop_(loop), listener_(kj::mv(listener)), page_(kj::mv(page)), alive_(std::make_shared<bool>(true)) {
  loop_.add(listener_, EPOLLIN, *this);
}

TextPageServer::~TextPageServer() {
  *alive_ = false;
  if (!paused_) loop_.remove(listener_, *this);
}

void TextPageServer::onEvents(uint32_t events) {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    const bool dead = (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (dead || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) pause();
    return;
  }
  kj::AutoCloseFd socket(fd);
  // Who has been at it longest makes room: silent ones must not shut the others out.
  if (clients_.size() >= MAX_CLIENTS) clients_.erase(clients_.begin());
  clients_.push_back(std::make_unique<Client>(*this, nextNumber_++, kj::mv(socket)));
}

// Out of descriptors, or the socket is dead: a page of numbers is worth less than a spinning daemon.
void TextPageServer::pause() {
  loop_.remove(listener_, *this);
  paused_ = true;
  resuming_ = loop_.timer()
                  .afterDelay(ACCEPT_PAUSE_MS * kj::MILLISECONDS)
                  .then([this] {
                    paused_ = false;
                    loop_.add(listener_, EPOLLIN, *this);
                  })
                  .eagerlyEvaluate(nullptr);
}

void TextPageServer::drop(Client& client) {
  // The client is the caller. By number: one that made room meanwhile is gone, and another may lie where it was.
  loop_.defer([this, gone = client.number, alive = alive_] {
    if (*alive) std::erase_if(clients_, [gone](const auto& other) { return other->number == gone; });
  });
}

}  // namespace sallyport
