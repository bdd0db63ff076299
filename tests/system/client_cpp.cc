// client_cpp.cc - what C++ programs do with libsallyport: threads, moves, large batches, errors by code. Run by
// clients_test.py against a real vaultd.
#include <sallyport/vault.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <thread>

using namespace sallyport::client;

#define EXPECT(condition) \
  do { \
    if (!(condition)) { \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      std::exit(1); \
    } \
  } while (0)

namespace {

template <typename Step>
Code codeOf(Step&& step) {
  try {
    step();
  } catch (const Error& error) { return error.code(); }
  return Code::ok;
}

void threadsShareAVault(const std::string& path) {
  auto vault = Vault::connect(path);
  auto key = vault.key("backup");
  std::atomic<int> done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(t) + ":" + std::to_string(i);
        const Boxed boxed = key.box(Peer::named("alice"), text);
        if (key.open(Peer::named("alice"), boxed.nonce, boxed.box).text.text() == text) ++done;
        // Keys come and go beside the calls of others.
        auto own = vault.key("backup");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT(done == 400);
}

void batches(Key& key) {
  const std::string longText(40'000, 'x');
  const std::string tooLong(70'000, 'x');
  std::vector<BoxItem> items(200, {Peer::named("alice"), "text"});
  items[7].text = longText;
  items[8].text = tooLong;
  items[9].peer = Peer::key("no key");
  const auto outcomes = key.boxEach(items);
  EXPECT(outcomes.size() == 200);
  std::set<Nonce> nonces;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT(outcomes[i].code() == (i == 8 ? Code::tooLong : i == 9 ? Code::badSize : Code::ok));
    if (outcomes[i]) nonces.insert(outcomes[i].value().nonce);
  }
  EXPECT(nonces.size() == 198);
  EXPECT(outcomes[7].value().box.size() == longText.size() + 16);
  EXPECT(codeOf([&] { static_cast<void>(outcomes[8].value()); }) == Code::tooLong);
  EXPECT(key.boxEach({}).empty());
}

void keysAreMovedAndClosed(const std::string& path) {
  auto vault = Vault::connect(path);
  auto key = vault.key("backup", std::array{Verb::box});
  EXPECT(key.name() == "backup" && key.verbs() == std::vector{Verb::box} && key.lease().count() == 0);
  Key moved = std::move(key);
  EXPECT(codeOf([&] { key.box(Peer::named("alice"), "text"); }) == Code::closed);
  moved.box(Peer::named("alice"), "text");
  moved = vault.key("backup");
  moved.close();
  moved.close();
  EXPECT(codeOf([&] { moved.box(Peer::named("alice"), "text"); }) == Code::closed);
  EXPECT(codeOf([&] { moved.renew(); }) == Code::closed);

  // A key outlives its Vault, but not the Vault's close().
  Key kept = [&] { return Vault::connect(path).key("backup"); }();
  kept.box(Peer::named("alice"), "text");
  Key closed = vault.key("backup");
  vault.close();
  vault.close();
  EXPECT(codeOf([&] { closed.box(Peer::named("alice"), "text"); }) == Code::closed);
  EXPECT(codeOf([&] { vault.ping(); }) == Code::closed);
}

void errorsSayWhat(const std::string& path) {
  EXPECT(codeOf([] { Vault::connect("/nonexistent"); }) == Code::cantConnect);
  EXPECT(codeOf([&] { Vault::connect(path, {.timeout = std::chrono::milliseconds(0)}); }) == Code::badArgument);
  auto vault = Vault::connect(path);
  EXPECT(codeOf([&] { vault.key("backup", {}, std::chrono::milliseconds(-1)); }) == Code::badArgument);
  EXPECT(codeOf([&] { vault.publicKey("nobody"); }) == Code::unknownKey);
  EXPECT(std::string(name(Code::unknownKey)) == "unknownKey");
  EXPECT(vault.keys().size() == 1 && vault.keys()[0].publicKey == vault.publicKey("backup"));
}

}  // namespace

int main(int, char** argv) {
  const std::string path = argv[1];
  auto vault = Vault::connect(path);
  auto key = vault.key("backup");
  batches(key);
  threadsShareAVault(path);
  keysAreMovedAndClosed(path);
  errorsSayWhat(path);
  EXPECT(key.freshNonces("minute-k", 64).size() == 64);

  const Boxed boxed = key.box(Peer::named("alice"), "a secret");
  Plaintext text = key.open(Peer::named("alice"), boxed.nonce, boxed.box).text;
  Plaintext taken = std::move(text);
  EXPECT(text.size() == 0 && taken.text() == "a secret");
  taken.wipe();
  EXPECT(taken.size() == 0);
  std::puts("all good");
}
