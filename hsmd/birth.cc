// birth.cc - see birth.h. Part of: hsmd.
#include "hsmd/birth.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "common/log.h"

namespace sallyport::hsmd {

void Birth::send(const hsm::Control& control, int fd) const {
  hsm::ControlFrame frame = hsm::writeControl(control);
  iovec part{.iov_base = frame.data(), .iov_len = frame.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fd)> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = space.data();
    message.msg_controllen = space.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  // A keeper that is gone takes this process with it.
  (void)!sendmsg(socket_, &message, MSG_NOSIGNAL);
}

void Birth::up(hsm::Status login, std::string_view detail) const {
  send(hsm::WorkerUp{
      .epoch = epoch_, .pid = static_cast<uint32_t>(getpid()), .login = login, .detail = hsm::Detail::cut(detail)});
}

void Birth::layer(std::string_view name, uint8_t state, std::string_view detail) const {
  send(hsm::WorkerLayer{
      .epoch = epoch_, .layer = hsm::Bounded<16>::cut(name), .state = state, .detail = hsm::Bounded<160>::cut(detail)});
}

void Birth::listener(int fd) const { send(hsm::Denials{.epoch = epoch_}, fd); }

void Birth::die(hsm::Status status, std::string_view detail) const {
  send(hsm::WorkerDied{
      .epoch = epoch_, .pid = static_cast<uint32_t>(getpid()), .status = status, .detail = hsm::Detail::cut(detail)});
  _exit(status == hsm::Status::Ok ? 0 : 1);
}

}  // namespace sallyport::hsmd
