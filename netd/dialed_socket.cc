// dialed_socket.cc - see dialed_socket.h.
#include "netd/dialed_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>

#include "netd/worker.h"

namespace sallyport::netd {

namespace {
// A host that is near has answered by now: then there is nothing to wait for.
bool isConnected(int fd) {
  tcp_info info{};
  socklen_t length = offsetof(tcp_info, tcpi_ca_state);  // the state alone
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_ESTABLISHED;
}
}  // namespace

DialedSocket::DialedSocket(Worker& worker, uint32_t entryId, OnDone onDone)
    : worker_(worker),
      entryId_(entryId),
      onDone_(kj::mv(onDone)),
      deadline_(worker.loop()
                    .timer()
                    .afterDelay(worker.limits().dialTimeoutMs * kj::MILLISECONDS)
                    .then([this] {
                      // By number: the object may be gone by then.
                      worker_.soon([&held = worker_, request = request_] { held.expireDial(request); });
                    })
                    .eagerlyEvaluate(nullptr)) {
  worker_.stats().add(Counter::Dials);
  ask();
}

DialedSocket::~DialedSocket() {
  stopWatching();
  worker_.forgetDial(request_);
}

void DialedSocket::ask() {
  worker_.forgetDial(request_);
  request_ = worker_.startDial(*this, entryId_, attempt_);
}

void DialedSocket::askNext(int error) {
  error_ = error;
  ++attempt_;
  ask();
}

void DialedSocket::stopWatching() {
  if (!watching_) return;
  watching_ = false;
  worker_.loop().remove(socket_, *this);
}

void DialedSocket::done(kj::Maybe<kj::AutoCloseFd> socket) {
  stopWatching();
  worker_.forgetDial(request_);
  if (socket == nullptr) worker_.stats().add(Counter::DialFailures);
  if (socket == nullptr ? error_ != 0 : tellsSuccess_) worker_.tellDialed(entryId_, socket == nullptr ? error_ : 0);
  auto callback = kj::mv(onDone_);
  callback(kj::mv(socket));  // `this` may be gone now
}

void DialedSocket::expire() {
  if (watching_) error_ = ETIMEDOUT;
  done(nullptr);
}

void DialedSocket::onAnswer(ControlChannel::Received& received) {
  if (received.record.kind == ControlKind::DialFailed || received.fds.empty()) {
    // 0: no address is left; otherwise this one failed at once and the next is asked for.
    if (received.record.value == 0) return done(nullptr);
    return askNext(static_cast<int>(received.record.value));
  }
  tellsSuccess_ = received.record.value != 0;
  if (received.fds[0].get() >= worker_.descriptorCeiling()) return done(nullptr);
  socket_ = kj::mv(received.fds[0]);
  if (isConnected(socket_)) return done(kj::mv(socket_));
  watching_ = true;
  worker_.loop().add(socket_, EPOLLOUT, *this);
}

void DialedSocket::onEvents(uint32_t) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &length);
  stopWatching();
  if (error == 0) return done(kj::mv(socket_));
  socket_ = nullptr;
  askNext(error);
}

}  // namespace sallyport::netd
