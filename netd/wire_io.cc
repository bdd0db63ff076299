// wire_io.cc - see wire_io.h.
#include "netd/wire_io.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/secret_bytes.h"

namespace sallyport::netd {

void Stash::set(BufferBudget& budget, std::span<const iovec> parts, size_t skip) {
  CHECK(data_ == nullptr);
  size_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  CHECK(skip < total);
  size_ = capacity_ = total - skip;
  start_ = 0;
  data_ = std::make_unique_for_overwrite<std::byte[]>(size_);
  std::byte* to = data_.get();
  for (const iovec& part : parts) {
    const size_t skipped = std::min(skip, part.iov_len);
    skip -= skipped;
    std::memcpy(to, static_cast<const std::byte*>(part.iov_base) + skipped, part.iov_len - skipped);
    to += part.iov_len - skipped;
  }
  budget.take(capacity_);
}

void Stash::set(BufferBudget& budget, ByteSpan bytes) {
  const iovec part{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  set(budget, std::span(&part, 1), 0);
}

MutableByteSpan Stash::extend(BufferBudget& budget, size_t bytes, size_t most) {
  if (bytes > capacity_ - size_) {
    const ByteSpan held = rest();
    const size_t capacity = std::max(held.size() + bytes, std::min(2 * held.size(), most));
    auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity);
    std::ranges::copy(held, larger.get());
    const size_t size = held.size();
    clear(budget);
    data_ = std::move(larger);
    size_ = size;
    capacity_ = capacity;
    budget.take(capacity_);
  }
  const MutableByteSpan room(data_.get() + size_, bytes);
  size_ += bytes;
  return room;
}

void Stash::clear(BufferBudget& budget) {
  if (data_ == nullptr) return;
  wipe({data_.get(), size_});  // may be text
  budget.give(capacity_);
  data_ = nullptr;
  start_ = size_ = capacity_ = 0;
}

Received receiveInto(int fd, MutableByteSpan room, size_t& have) {
  const MutableByteSpan rest = room.subspan(have);
  ssize_t got;
  do got = recv(fd, rest.data(), rest.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return Received::NothingYet;
  if (got <= 0) return Received::Closed;
  have += static_cast<size_t>(got);
  return Received::Some;
}

bool sendWhole(int fd, ByteSpan packet) {
  return send(fd, packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(packet.size());
}

IoState sendAll(int fd, std::span<iovec> parts, Stash& stash, BufferBudget& budget) {
  CHECK(stash.empty());
  size_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  ssize_t sent;
  do sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    if (errno != EAGAIN) return IoState::Failed;
    sent = 0;
  }
  if (static_cast<size_t>(sent) == total) return IoState::Done;
  stash.set(budget, parts, static_cast<size_t>(sent));
  return IoState::Blocked;
}

IoState flushStash(int fd, Stash& stash, BufferBudget& budget) {
  while (!stash.empty()) {
    const ByteSpan rest = stash.rest();
    const ssize_t sent = send(fd, rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? IoState::Blocked : IoState::Failed;
    }
    if (static_cast<size_t>(sent) == rest.size())
      stash.clear(budget);
    else
      stash.consume(static_cast<size_t>(sent));
  }
  return IoState::Done;
}

}  // namespace sallyport::netd
