// Goal: a PIN is tried when the token's flags and its own past allow it, once, and never again when it was wrong.
// Method: the rule as a table over flags, states and modes; then a fake token that counts its logins.
#include <gtest/gtest.h>

#include "hsmd/login.h"
#include "tests/unit/hsmd/fake_module.h"

namespace sallyport::hsmd {
namespace {

constexpr CK_FLAGS READY = CKF_USER_PIN_INITIALIZED;
constexpr CK_FLAGS LOW = READY | CKF_USER_PIN_COUNT_LOW;
constexpr CK_FLAGS LAST = READY | CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY;
constexpr CK_FLAGS LOCKED = READY | CKF_USER_PIN_LOCKED;

TEST(PinRules, SayWhenAPinMayBeTried) {
  struct Case {
    CK_FLAGS flags;
    PinState state;
    LoginMode mode;
    Status expected;
  };
  using enum PinState;
  using enum LoginMode;
  const Case cases[] = {
      {READY, Untried, Automatic, Status::Ok},
      {READY, Good, Automatic, Status::Ok},
      {READY, Missing, Automatic, Status::NotLoggedIn},
      {READY, Trying, Automatic, Status::NotLoggedIn},
      {READY, Wrong, Automatic, Status::PinWrong},
      {READY, Wrong, Forced, Status::PinWrong},
      {READY, Locked, Operator, Status::PinLocked},
      {0, Untried, Forced, Status::PinUnset},
      {LOW, Untried, Automatic, Status::PinLowRefused},
      {LOW, Untried, Operator, Status::Ok},
      {LOW, Good, Automatic, Status::Ok},
      {LAST, Untried, Automatic, Status::PinFinalTryRefused},
      {LAST, Good, Automatic, Status::PinFinalTryRefused},
      {LAST, Untried, Operator, Status::PinFinalTryRefused},
      {LAST, Untried, Forced, Status::Ok},
      {LOCKED, Untried, Forced, Status::PinLocked},
      {LOCKED | CKF_USER_PIN_FINAL_TRY, Good, Forced, Status::PinLocked},
      {READY, static_cast<PinState>(77), Forced, Status::NotLoggedIn},
  };
  for (const Case& one : cases)
    EXPECT_EQ(mayTry(one.flags, one.state, one.mode), one.expected)
        << one.flags << " " << static_cast<uint32_t>(one.state) << " " << static_cast<int>(one.mode);
}

class Login : public testing::Test {
 protected:
  Module module_ = freshModule();
  CK_SESSION_HANDLE session_ = 0;
  PinRecord pin_{};

  void SetUp() override {
    ASSERT_EQ(module_->C_OpenSession(7, CKF_SERIAL_SESSION, nullptr, nullptr, &session_), CKR_OK);
  }
  Status tryLogin(LoginMode mode = LoginMode::Automatic) {
    const auto done = logIn(module_, 7, session_, pin_, mode);
    return done ? Status::Ok : done.error().status;
  }
  void give(std::string_view pin) { ASSERT_TRUE(pin_.give(asBytes(pin))); }
  int logins() { return fake().calls["C_Login"]; }
};

TEST_F(Login, KeepsAPinThatWasRight) {
  give("1234");
  EXPECT_EQ(tryLogin(), Status::Ok);
  EXPECT_EQ(fake().pinSeen, "1234");
  EXPECT_EQ(pin_.state, PinState::Good);
  EXPECT_EQ(pin_.pin().size(), 4U);
}

TEST_F(Login, NeverTriesAWrongPinAgain) {
  give("0000");
  EXPECT_EQ(tryLogin(), Status::PinWrong);
  EXPECT_EQ(pin_.state, PinState::Wrong);
  EXPECT_EQ(pin_.length, 0U);
  EXPECT_EQ(pin_.bytes, decltype(pin_.bytes){});
  // The next worker, and the one after it.
  pin_.settle();
  EXPECT_EQ(tryLogin(), Status::PinWrong);
  EXPECT_EQ(tryLogin(), Status::PinWrong);
  EXPECT_EQ(logins(), 1);
}

TEST_F(Login, AForgottenRightPinIsWrongOnce) {
  give("1234");
  ASSERT_EQ(tryLogin(), Status::Ok);
  module_->C_Logout(session_);
  fake().pin = "changed";
  EXPECT_EQ(tryLogin(), Status::PinWrong);
  EXPECT_EQ(tryLogin(), Status::PinWrong);
  EXPECT_EQ(logins(), 2);
}

TEST_F(Login, ReadsTheFlagsBeforeItTries) {
  give("1234");
  fake().flags |= CKF_USER_PIN_COUNT_LOW;
  EXPECT_EQ(tryLogin(), Status::PinLowRefused);
  EXPECT_EQ(logins(), 0);
  EXPECT_EQ(tryLogin(LoginMode::Operator), Status::Ok);
  EXPECT_EQ(logins(), 1);
}

TEST_F(Login, TheLastTryNeedsForce) {
  give("1234");
  fake().flags |= CKF_USER_PIN_FINAL_TRY;
  EXPECT_EQ(tryLogin(LoginMode::Operator), Status::PinFinalTryRefused);
  EXPECT_EQ(logins(), 0);
  EXPECT_EQ(tryLogin(LoginMode::Forced), Status::Ok);
}

TEST_F(Login, WhatNeverReturnedIsInDoubtAndNotTriedAgain) {
  give("1234");
  pin_.state = PinState::Trying;  // the worker before has died in C_Login
  pin_.settle();
  EXPECT_EQ(pin_.length, 0U);
  EXPECT_EQ(tryLogin(), Status::NotLoggedIn);
  EXPECT_EQ(logins(), 0);
}

TEST_F(Login, AnErrorThatSaysNothingOfThePinLeavesItInDoubt) {
  give("1234");
  fake().answers["C_Login"] = {CKR_FUNCTION_FAILED};
  EXPECT_EQ(tryLogin(), Status::ModuleFailed);
  EXPECT_EQ(tryLogin(), Status::NotLoggedIn);
  EXPECT_EQ(logins(), 1);
}

TEST_F(Login, APinThatWasRightSurvivesSuchAnError) {
  give("1234");
  ASSERT_EQ(tryLogin(), Status::Ok);
  module_->C_Logout(session_);
  fake().answers["C_Login"] = {CKR_FUNCTION_FAILED};
  EXPECT_EQ(tryLogin(), Status::ModuleFailed);
  EXPECT_EQ(tryLogin(), Status::Ok);
}

TEST_F(Login, ATokenThatWasPulledCostsNoTry) {
  give("1234");
  fake().answers["C_Login"] = {CKR_DEVICE_REMOVED};
  EXPECT_EQ(tryLogin(), Status::DeviceRemoved);
  EXPECT_EQ(tryLogin(), Status::Ok);
}

TEST_F(Login, WithoutFlagsThereIsNoTry) {
  give("1234");
  fake().answers["C_GetTokenInfo"] = {CKR_GENERAL_ERROR};
  EXPECT_EQ(tryLogin(), Status::DeviceRemoved);
  EXPECT_EQ(logins(), 0);
  EXPECT_EQ(pin_.state, PinState::Untried);
}

TEST_F(Login, BeingLoggedInIsSuccess) {
  give("1234");
  ASSERT_EQ(tryLogin(), Status::Ok);
  EXPECT_EQ(tryLogin(), Status::Ok);
}

TEST_F(Login, ALockedTokenForgetsThePin) {
  give("1234");
  fake().answers["C_Login"] = {CKR_PIN_LOCKED};
  EXPECT_EQ(tryLogin(), Status::PinLocked);
  EXPECT_EQ(pin_.length, 0U);
  EXPECT_EQ(tryLogin(LoginMode::Forced), Status::PinLocked);
  EXPECT_EQ(logins(), 1);
}

TEST_F(Login, ATokenThatNeedsNoneGetsNoPin) {
  fake().flags &= ~CK_FLAGS{CKF_LOGIN_REQUIRED};
  EXPECT_EQ(tryLogin(), Status::Ok);
  EXPECT_EQ(logins(), 0);
}

TEST(PinRecordTest, TakesOneThatFits) {
  PinRecord record{};
  EXPECT_FALSE(record.give({}));
  const std::array<std::byte, hsm::MAX_PIN_BYTES + 1> tooLong{};
  EXPECT_FALSE(record.give(tooLong));
  EXPECT_EQ(record.state, PinState::Missing);
  EXPECT_TRUE(record.give(ByteSpan(tooLong).first(hsm::MAX_PIN_BYTES)));
}

TEST(PinRecordTest, BelievesNoLengthAndNoStateOfAModules) {
  PinRecord record{};
  record.length = 4000;
  EXPECT_EQ(record.pin().size(), 0U);
  record.state = static_cast<PinState>(99);
  record.settle();
  EXPECT_EQ(record.state, PinState::Missing);
}

}  // namespace
}  // namespace sallyport::hsmd
