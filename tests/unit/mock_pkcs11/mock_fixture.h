// mock_fixture.h - the mock PKCS#11 module with a token of its own in a temporary folder, for its unit tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>

#include "tests/mock_pkcs11/counters.h"
#include "tests/mock_pkcs11/loaded_module.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::test {

class MockFixture : public testing::Test {
 protected:
  MockFixture() {
    std::ofstream(folder.path() / "token") << "mock-pkcs11 1\nlabel test\nserial 42\npin 1234\ntries 3\nlimit 3\n";
    faults("");
    setenv("MOCK_PKCS11_DIR", folder.path().c_str(), 1);
    EXPECT_TRUE(counters.open((folder.path() / "counters").c_str()));
  }
  ~MockFixture() override {
    module.reset();
    if (library_ != nullptr) dlclose(library_);
    unsetenv("MOCK_PKCS11_DIR");
  }

  static const char* path() { return SALLYPORT_MOCK_PKCS11; }
  void* library() {
    if (library_ == nullptr) library_ = dlopen(path(), RTLD_NOW | RTLD_LOCAL);
    return library_;
  }
  void load() { module = std::make_unique<LoadedModule>(path()); }
  void start(const std::string& pin = "1234") {
    load();
    ASSERT_EQ(module->initialize(), CKR_OK);
    ASSERT_EQ(module->openSession(session, "test"), CKR_OK);
    if (!pin.empty()) { ASSERT_EQ(module->login(session, pin), CKR_OK); }
  }
  // As another process would find it: nobody is logged in.
  void restart() {
    module.reset();
    start("");
  }
  CK_FLAGS pinFlags() {
    CK_TOKEN_INFO info = {};
    EXPECT_EQ((*module)->C_GetTokenInfo(module->slot(), &info), CKR_OK);
    return info.flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
  }
  void faults(const std::string& text) {
    std::fstream file(folder.path() / "faults", std::ios::out | std::ios::trunc);
    file << text;
  }
  uint64_t counter(std::string_view name) { return counters.read(name); }

  TemporaryFolder folder;
  mock::Counters counters;
  std::unique_ptr<LoadedModule> module;
  CK_SESSION_HANDLE session = 0;

 private:
  void* library_ = nullptr;
};

}  // namespace sallyport::test
