// fake_hsmd.h - the other end of a token's three descriptors, on the test's own loop: it has X25519 and Ed25519 keys in
// software, and does wrong whatever a test wants.
#pragma once

#include <fcntl.h>
#include <sodium.h>
#include <sys/socket.h>

#include <functional>
#include <set>
#include <vector>

#include "common/event_loop.h"
#include "common/secret_bytes.h"
#include "hsmlink/hsm_link.h"
#include "vaultd/key_format.h"

namespace sallyport::vaultd::test {

class FakeHsmd {
 public:
  struct Held {
    hsm::KeyInfo info;
    std::array<unsigned char, 64> secret{};
  };

  explicit FakeHsmd(EventLoop& loop) : loop_(loop) {
    calls_ = pair(ourCalls_);
    control_ = pair(ourControl_);
    auto made = hsmlink::SharedPage::create();
    CHECK(made.has_value());
    madePage_ = std::move(*made);
    page = madePage_.get();
    loop_.add(calls_.get(), EPOLLIN, callsEnd_);
    loop_.add(control_.get(), EPOLLIN, controlEnd_);
  }
  ~FakeHsmd() { vanish(); }

  // For the Token; once.
  hsmlink::KeeperEnds ends() { return {std::move(ourCalls_), std::move(ourControl_), std::move(madePage_)}; }

  // --- what it has ---
  std::vector<Held> keys;
  PublicKey addX25519(std::string_view id) {
    Held held;
    held.info.kind = hsm::KeyKind::X25519;
    held.info.spelling = hsm::Spelling::Montgomery;
    crypto_box_keypair(reinterpret_cast<unsigned char*>(held.info.publicKey.data()), held.secret.data());
    return add(std::move(held), id);
  }
  PublicKey addEd25519(std::string_view id) {
    Held held;
    held.info.kind = hsm::KeyKind::Ed25519;
    crypto_sign_keypair(reinterpret_cast<unsigned char*>(held.info.publicKey.data()), held.secret.data());
    return add(std::move(held), id);
  }
  void addAes(std::string_view id) {
    Held held;
    held.info.kind = hsm::KeyKind::Aes;
    held.info.gcm = true;
    held.info.bits = 256;
    add(std::move(held), id);
  }

  // --- what it does ---
  uint32_t epoch = 0;
  hsm::Status login = hsm::Status::Ok;
  std::string rightPin = "1234";
  // Looks at each request first: true if it has dealt with it, in whatever way.
  std::function<bool(const hsm::Request&)> instead;
  std::vector<hsm::Request> seen;
  std::vector<hsm::KillWorker> kills;
  std::vector<std::array<std::byte, 32>> wrapped;  // by Wrap; the blob is the index
  bool diesWhenKilled = true, reviveWhenKilled = true;
  bool dead = false;  // nobody is there to be killed
  uint64_t rssKiB = 1000;
  hsmlink::SharedPage* page = nullptr;

  void up() {
    ++epoch;
    dead = false;
    tell(hsm::WorkerUp{epoch, 4711, login});
  }
  void die(hsm::Status status = hsm::Status::ModuleFailed) {
    dead = true;
    tell(hsm::WorkerDied{epoch, 4711, status, 9, 10});
  }
  // Another worker that doesn't come so far as to be up.
  void fail(hsm::Status status) {
    ++epoch;
    die(status);
  }
  void vanish() {
    if (calls_ == nullptr) return;
    loop_.remove(calls_.get(), callsEnd_);
    loop_.remove(control_.get(), controlEnd_);
    calls_ = nullptr;
    control_ = nullptr;
  }
  void tell(const hsm::Control& control) {
    const auto frame = hsm::writeControl(control);
    raw(control_.get(), frame);
  }
  void reply(const hsm::Request& request, hsm::Status status, hsm::Answer answer = hsm::Done{}) {
    reply(hsm::Reply{epoch, request.id, status, 0, std::move(answer)});
  }
  void reply(const hsm::Reply& reply) {
    const auto frame = hsm::writeReply(reply);
    raw(calls_.get(), frame);
  }
  void rawReply(ByteSpan bytes) { raw(calls_.get(), bytes); }
  void rawControl(ByteSpan bytes) { raw(control_.get(), bytes); }

  // The right answer.
  void answer(const hsm::Request& request) {
    if (request.epoch != epoch) return reply(request, hsm::Status::StaleEpoch);
    std::visit([&](const auto& ask) { does(request, ask); }, request.ask);
  }
  template <typename T>
  size_t count() const {
    size_t count = 0;
    for (const auto& request : seen) count += std::holds_alternative<T>(request.ask) ? 1 : 0;
    return count;
  }

 private:
  struct End final : EventLoop::Watcher {
    FakeHsmd& fake;
    bool control;
    End(FakeHsmd& owner, bool isControl) : fake(owner), control(isControl) {}
    void onEvents(uint32_t) override { control ? fake.readControl() : fake.readCalls(); }
  };
  kj::AutoCloseFd pair(kj::AutoCloseFd& ours) {
    int fds[2];
    CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    ours = kj::AutoCloseFd(fds[0]);
    return kj::AutoCloseFd(fds[1]);
  }
  static void raw(int fd, ByteSpan bytes) { static_cast<void>(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL)); }
  PublicKey add(Held held, std::string_view id) {
    held.info.id = hsm::KeyId::cut(id);
    held.info.index = static_cast<uint16_t>(keys.size());
    const PublicKey key(held.info.publicKey);
    keys.push_back(std::move(held));
    return key;
  }
  void readCalls() {
    hsm::RequestFrame frame;
    while (calls_ != nullptr && ::recv(calls_.get(), frame.data(), frame.size(), 0) == ssize_t{hsm::REQUEST_BYTES}) {
      const auto request = hsm::parseRequest(frame);
      CHECK(request.has_value());
      seen.push_back(*request);
      if (instead && instead(*request)) continue;
      answer(*request);
    }
  }
  void readControl() {
    hsm::ControlFrame frame;
    while (control_ != nullptr &&
           ::recv(control_.get(), frame.data(), frame.size(), 0) == ssize_t{hsm::CONTROL_BYTES}) {
      const auto control = hsm::parseControl(frame);
      CHECK(control.has_value());
      if (const auto* kill = std::get_if<hsm::KillWorker>(&*control)) {
        kills.push_back(*kill);
        if (kill->epoch != epoch || dead || !diesWhenKilled) continue;
        die();
        if (reviveWhenKilled) up();
      }
    }
  }

  void does(const hsm::Request& request, const hsm::Hello&) {
    hsm::HelloReply hello;
    hello.login = login;
    hello.keyCount = static_cast<uint16_t>(keys.size());
    hello.sessions = 2;
    hello.label = Bounded32("fake");
    reply(request, hsm::Status::Ok, hello);
  }
  static hsm::Bounded<32> Bounded32(std::string_view text) { return hsm::Bounded<32>::cut(text); }
  void does(const hsm::Request& request, const hsm::List& list) {
    if (list.index >= keys.size()) return reply(request, hsm::Status::NoKey);
    hsm::KeyInfo info = keys[list.index].info;
    info.count = static_cast<uint16_t>(keys.size());
    reply(request, hsm::Status::Ok, info);
  }
  void does(const hsm::Request& request, const hsm::Derive& derive) {
    if (derive.key >= keys.size()) return reply(request, hsm::Status::NoKey);
    auto slot = page->slot(derive.slot);
    if (crypto_scalarmult(reinterpret_cast<unsigned char*>(slot.data()), keys[derive.key].secret.data(),
                          reinterpret_cast<const unsigned char*>(derive.peer.data())) != 0) {
      return reply(request, hsm::Status::BadResult);
    }
    reply(request, hsm::Status::Ok);
  }
  void does(const hsm::Request& request, const hsm::Sign& sign) {
    hsm::SignReply made;
    crypto_sign_detached(reinterpret_cast<unsigned char*>(made.signature.data()), nullptr,
                         reinterpret_cast<const unsigned char*>(page->message().data()), sign.messageBytes,
                         keys.at(sign.key).secret.data());
    reply(request, hsm::Status::Ok, made);
  }
  void does(const hsm::Request& request, const hsm::Wrap& wrap) {
    auto& secret = wrapped.emplace_back();
    std::ranges::copy(page->slot(wrap.slot).first(32), secret.begin());
    hsm::WrapReply made;
    made.blob = hsm::Blob::cut(std::to_string(wrapped.size() - 1));
    reply(request, hsm::Status::Ok, made);
  }
  void does(const hsm::Request& request, const hsm::Unwrap& unwrap) {
    const size_t which = std::stoul(unwrap.blob.text());
    if (which >= wrapped.size()) return reply(request, hsm::Status::BlobRejected);
    std::ranges::copy(wrapped[which], page->slot(unwrap.slot).begin());
    reply(request, hsm::Status::Ok);
  }
  void does(const hsm::Request& request, const hsm::Ping&) {
    reply(request, hsm::Status::Ok, hsm::PingReply{rssKiB, 0, 1, 0});
  }
  void does(const hsm::Request& request, const hsm::Login& asked) {
    const auto slot = page->slot(asked.slot);
    const std::string pin(reinterpret_cast<const char*>(slot.data()), asked.pinBytes);
    wipe(slot);
    login = pin == rightPin ? hsm::Status::Ok : hsm::Status::PinWrong;
    reply(request, login);
  }
  void does(const hsm::Request& request, const hsm::Logout&) {
    login = hsm::Status::NotLoggedIn;
    reply(request, hsm::Status::Ok);
  }
  template <typename Other>
  void does(const hsm::Request& request, const Other&) {
    reply(request, hsm::Status::Unsupported);
  }

  EventLoop& loop_;
  kj::AutoCloseFd ourCalls_, ourControl_, calls_, control_;
  std::unique_ptr<hsmlink::SharedPage> madePage_;
  End callsEnd_{*this, false}, controlEnd_{*this, true};
};

}  // namespace sallyport::vaultd::test
