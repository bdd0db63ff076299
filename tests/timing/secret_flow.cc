// Goal: no branch and no memory index of the vault depends on a secret but where docs/threat-model.md says so.
// Method: ctgrind's. Secrets are marked as undefined for valgrind's memcheck, which follows what is computed from them
// bit by bit and reports each branch and each index that depends on it. The points at which a bit may become public are
// reveal(), those in libsodium, and the header of a frame: declassified.supp and block_flow.cc have all of them. After
// a step its results are asked whether they depend on the secret, so a step that used something else can't pass; and
// steps that break the rule must be found.
#include <cstdio>

#include "tests/timing/flow.h"
#include "vaultd/box.h"

namespace sallyport::vaultd {
namespace flow {

namespace {
int failed = 0;
unsigned reported() { return VALGRIND_COUNT_ERRORS; }
}  // namespace

int failures() { return failed; }

void expect(bool good, const std::string& what) {
  if (good) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failed;
}

bool dependsOnASecret(ByteSpan bytes) {
  std::vector<unsigned char> undefined(bytes.size());
  CHECK(bytes.empty() || VALGRIND_GET_VBITS(bytes.data(), undefined.data(), bytes.size()) == 1);
  return sodium_is_zero(undefined.data(), undefined.size()) == 0;
}

void expectSecret(ByteSpan bytes, const std::string& what) {
  expect(dependsOnASecret(bytes), what + ": doesn't depend on the secret, so the step wasn't tried");
  publish(bytes);
}

void step(const std::string& name, const std::function<void()>& work) {
  const unsigned before = reported();
  work();
  wipeDeadStack();
  const unsigned found = reported() - before;
  std::printf("# %-28s %u\n", name.c_str(), found);
  std::fflush(stdout);
  expect(found == 0, name + ": valgrind reports a branch or an index that depends on a secret");
}

void control(const std::string& name, const std::function<void()>& work) {
  const unsigned before = reported();
  std::printf("# the next report is wanted: %s\n", name.c_str());
  std::fflush(stdout);
  work();
  expect(reported() > before, name + ": not reported, so nothing above says anything");
}

}  // namespace flow

namespace {

[[gnu::noinline]] void branchOn(const unsigned char& secret) {
  if ((secret & 1) != 0) asm volatile("# one");
}
[[gnu::noinline]] int indexBy(const unsigned char& secret) {
  static volatile unsigned char table[256];
  return table[secret];
}

int run() {
  if (RUNNING_ON_VALGRIND == 0) {
    std::puts("run it under valgrind: meson test 'secret flow'");
    return 77;
  }
  CHECK(sodium_init() >= 0);
  prepareNonceCipher();
  flow::boxFlows();
  flow::keyFlows();
  flow::blockFlows();
  const LongTermSecret planted = LongTermSecret::random();
  flow::makeSecret(planted.expose());
  flow::control("a branch", [&] { branchOn(*planted.exposeData()); });
  flow::control("an index", [&] { static_cast<void>(indexBy(*planted.exposeData())); });
  flow::control("a comparison that stops early",
                [&] { static_cast<void>(std::memcmp(planted.exposeData(), "x", 1) == 0 ? std::puts("# equal") : 0); });
  std::printf("%d failures\n", flow::failures());
  return flow::failures() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sallyport::vaultd

int main() { return sallyport::vaultd::run(); }
