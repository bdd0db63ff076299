// control.cc - see control.h.
#include "netd/control.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/log.h"
#include "common/secret_bytes.h"

namespace sallyport::netd {

ControlChannel::ControlChannel(EventLoop& loop, int fd, size_t maxWaiting, OnRecord onRecord,
                               std::function<void()> onGone)
    : loop_(loop), fd_(fd), maxWaiting_(maxWaiting), onRecord_(std::move(onRecord)), onGone_(std::move(onGone)) {
  loop_.add(fd_, EPOLLIN, *this);
}

ControlChannel::~ControlChannel() {
  if (!gone_) loop_.remove(fd_, *this);
  close(fd_);
}

void ControlChannel::send(const ControlRecord& record, ByteSpan payload, std::vector<kj::AutoCloseFd> fds) {
  CHECK(sizeof record + payload.size() <= MAX_CONTROL_BYTES);
  if (gone_) return;
  Waiting item;
  item.bytes.resize(sizeof record + payload.size());
  std::memcpy(item.bytes.data(), &record, sizeof record);
  if (!payload.empty()) std::memcpy(item.bytes.data() + sizeof record, payload.data(), payload.size());
  item.fds = std::move(fds);
  if (waiting_.empty() && trySend(item)) {
    wipe(item.bytes);  // a cookie key may have been in it
    return;
  }
  waiting_.push_back(std::move(item));
  if (waiting_.size() > maxWaiting_) return gone();
  if (!wantsWrite_) {
    wantsWrite_ = true;
    loop_.modify(fd_, EPOLLIN | EPOLLOUT, *this);
  }
}

bool ControlChannel::trySend(const Waiting& item) {
  std::array<int, MAX_PASSED_FDS> fds;
  CHECK(item.fds.size() <= fds.size());
  for (size_t i = 0; i < item.fds.size(); ++i) fds[i] = item.fds[i].get();
  return sendDatagram(fd_, item.bytes, std::span(fds).first(item.fds.size()));
}

void ControlChannel::flush() {
  while (!waiting_.empty() && trySend(waiting_.front())) {
    wipe(waiting_.front().bytes);
    waiting_.pop_front();
  }
}

void ControlChannel::onEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    flush();
    if (waiting_.empty() && wantsWrite_) {
      wantsWrite_ = false;
      loop_.modify(fd_, EPOLLIN, *this);
    }
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  alignas(ControlRecord) std::array<std::byte, MAX_CONTROL_BYTES> buffer;
  for (int i = 0; i < 64 && !gone_; ++i) {
    auto datagram = receiveDatagram(fd_, buffer);
    if (!datagram) return;
    if (datagram->bytes < sizeof(ControlRecord) || datagram->truncated) return gone();
    Received received{{},
                      ByteSpan(buffer).subspan(sizeof(ControlRecord), datagram->bytes - sizeof(ControlRecord)),
                      std::span(datagram->fds).first(datagram->fdCount)};
    std::memcpy(&received.record, buffer.data(), sizeof(ControlRecord));
    onRecord_(received);
    if (received.record.kind == ControlKind::CookieKey) wipe(buffer);
  }
}

void ControlChannel::silence() {
  if (gone_) return;
  gone_ = true;
  loop_.remove(fd_, *this);
  for (Waiting& item : waiting_) wipe(item.bytes);
  waiting_.clear();
}

void ControlChannel::gone() {
  if (gone_) return;
  silence();
  onGone_();
}

}  // namespace sallyport::netd
