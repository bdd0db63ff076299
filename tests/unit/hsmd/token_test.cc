// Goal: a token comes back by itself after an error that means "look anew", once, and tells when it can't; results and
// keys that can't be right are refused. Method: a fake token whose answers a test sets.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "hsmd/prober.h"
#include "hsmd/token.h"
#include "tests/unit/hsmd/fake_module.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmd {
namespace {

using hsm::KeyKind;
using hsm::Spelling;

class TokenTest : public testing::Test {
 protected:
  Module module_ = freshModule();
  PinRecord pin_{};
  Board board_{};
  std::optional<Token> token_;
  Line line_;

  void SetUp() override {
    fake().addKey(100, "a");
    fake().addKey(101, "b");
    pin_.give(asBytes("1234"));
  }
  void start(Token::Options options = {}) {
    auto facts = findToken(module_, *parsePkcs11Uri("pkcs11:token=fake"));
    ASSERT_TRUE(facts);
    token_.emplace(module_, *facts, pin_, board_, options);
    ASSERT_TRUE(token_->open(LoginMode::Automatic));
    ASSERT_TRUE(probeKeys(module_, *facts, board_));
    ASSERT_TRUE(token_->findKeys());
  }
  Outcome<void> deriveOnce(size_t key = 0) {
    hsm::Block32 peer;
    const auto scalar = [] {
      std::array<unsigned char, 32> bytes{};
      bytes[0] = 8;
      return bytes;
    }();
    crypto_scalarmult_base(uchars(MutableByteSpan(peer)), scalar.data());
    hsm::Block32 secret;
    return token_->run(line_, key, [&](const Session& session, const TokenKey& one) {
      return derive(session, one.use, one.info.form, peer, secret);
    });
  }
  void failNext(const std::string& function, CK_RV rv) { fake().answers[function] = {rv}; }
};

TEST_F(TokenTest, FindsAndProvesItsKeys) {
  start();
  ASSERT_EQ(token_->keys().size(), 2U);
  const hsm::KeyInfo& info = token_->keys()[0].info;
  EXPECT_EQ(info.kind, KeyKind::X25519);
  EXPECT_EQ(info.spelling, Spelling::Montgomery);
  EXPECT_EQ(info.proof, Status::Ok);
  EXPECT_EQ(info.count, 2);
  // The fake has no public half: the token was asked for it.
  hsm::Block32 expected;
  crypto_scalarmult_base(uchars(MutableByteSpan(expected)), fake().keys[100].secret.data());
  EXPECT_EQ(info.publicKey, expected);
  EXPECT_TRUE(deriveOnce());
}

TEST_F(TokenTest, LooksAnewAfterEachErrorThatMeansIt) {
  for (const CK_RV rv : {CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID, CKR_SESSION_HANDLE_INVALID,
                         CKR_SESSION_CLOSED, CKR_USER_NOT_LOGGED_IN, CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED,
                         CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED}) {
    module_ = freshModule();
    SetUp();
    board_ = {};
    line_ = {};
    start();
    ASSERT_TRUE(deriveOnce());
    failNext("C_DeriveKey", rv);
    EXPECT_TRUE(deriveOnce()) << rv;
    EXPECT_EQ(token_->recoveries(), 1U) << rv;
    EXPECT_EQ(token_->lost(), Status::Ok);
  }
}

TEST_F(TokenTest, TriesOnlyOnceMore) {
  start();
  ASSERT_TRUE(deriveOnce());
  fake().calls.clear();
  fake().answers["C_DeriveKey"] = {CKR_OBJECT_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OK};
  const auto done = deriveOnce();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().rv, CKR_OBJECT_HANDLE_INVALID);
  EXPECT_EQ(fake().calls["C_DeriveKey"], 2);
}

TEST_F(TokenTest, ADeviceThatIsRemovedTwiceIsLost) {
  start();
  fake().answers["C_DeriveKey"] = {CKR_DEVICE_REMOVED, CKR_DEVICE_REMOVED, CKR_OK};
  EXPECT_EQ(deriveOnce().error().status, Status::DeviceRemoved);
  EXPECT_EQ(token_->lost(), Status::DeviceRemoved);
}

TEST_F(TokenTest, IsLostWhenADatabaseThatItsModuleKeepsOpenIsMoved) {
  const test::TemporaryFolder folder;
  for (const char* name : {"our-key4.db", "cert9.db", "other.db"}) std::ofstream(folder.path() / name) << name;
  start();
  token_->watch(DatabaseFiles::ofNss(folder.path()));
  EXPECT_TRUE(deriveOnce());
  std::filesystem::rename(folder.path() / "other.db", folder.path() / "moved.db");
  EXPECT_TRUE(deriveOnce()) << "a file that is none of NSS's";
  std::filesystem::rename(folder.path() / "our-key4.db", folder.path() / "aside");
  EXPECT_EQ(deriveOnce().error().status, Status::DeviceRemoved);
  EXPECT_EQ(token_->lost(), Status::DeviceRemoved);
}

TEST_F(TokenTest, IsLostWhenItsDatabaseIsAnotherFile) {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "key4.db") << "one";
  std::ofstream(folder.path() / "new") << "two";
  start();
  token_->watch(DatabaseFiles::ofNss(folder.path()));
  std::filesystem::rename(folder.path() / "new", folder.path() / "key4.db");
  EXPECT_EQ(deriveOnce().error().status, Status::DeviceRemoved);
}

TEST_F(TokenTest, FindsKeysThatHaveOtherHandlesNow) {
  start();
  ASSERT_TRUE(deriveOnce(1));
  fake().renumber(50);
  EXPECT_TRUE(deriveOnce(1));
  EXPECT_EQ(token_->keys()[1].use, 151U);
}

TEST_F(TokenTest, AKeyThatIsGoneIsNoKeyAndTheOtherWorks) {
  start();
  fake().keys.erase(100);
  const auto done = deriveOnce(0);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().status, Status::NoKey);
  EXPECT_TRUE(deriveOnce(1));
}

TEST_F(TokenTest, ATokenWithoutAnyOfItsKeysIsGone) {
  start();
  ASSERT_TRUE(deriveOnce());
  fake().keys.clear();
  const auto done = deriveOnce();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().status, Status::DeviceRemoved);
  EXPECT_EQ(token_->lost(), Status::DeviceRemoved);
}

TEST_F(TokenTest, TellsWhenItCantComeBack) {
  start();
  fake().present = false;
  failNext("C_DeriveKey", CKR_DEVICE_REMOVED);
  const auto done = deriveOnce();
  ASSERT_FALSE(done);
  EXPECT_EQ(token_->lost(), Status::DeviceRemoved);
  // And no module is asked any more.
  fake().calls.clear();
  EXPECT_FALSE(deriveOnce());
  EXPECT_TRUE(fake().calls.empty());
}

TEST_F(TokenTest, ALoginThatIsRefusedOnTheWayBackIsNotRepeated) {
  start();
  fake().pin = "changed";
  fake().calls.clear();
  failNext("C_DeriveKey", CKR_USER_NOT_LOGGED_IN);
  const auto done = deriveOnce();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().status, Status::PinWrong);
  EXPECT_EQ(token_->lost(), Status::PinWrong);
  EXPECT_FALSE(deriveOnce());
  EXPECT_EQ(fake().calls["C_Login"], 1);
}

TEST_F(TokenTest, ClosesTheSessionAfterAnyError) {
  start();
  ASSERT_TRUE(deriveOnce());
  const CK_SESSION_HANDLE before = line_.session;
  failNext("C_DeriveKey", CKR_GENERAL_ERROR);
  EXPECT_FALSE(deriveOnce());
  EXPECT_FALSE(fake().sessions.contains(before));
  EXPECT_EQ(token_->recoveries(), 0U);
  EXPECT_TRUE(deriveOnce());
}

TEST_F(TokenTest, TheLoginOutlivesAllLines) {
  start();
  for (int i = 0; i < 5; ++i) {
    failNext("C_DeriveKey", CKR_GENERAL_ERROR);
    EXPECT_FALSE(deriveOnce());
    EXPECT_TRUE(fake().loggedIn);
  }
}

TEST_F(TokenTest, DestroysEachResult) {
  start();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(deriveOnce());
  failNext("C_GetAttributeValue", CKR_GENERAL_ERROR);
  EXPECT_FALSE(deriveOnce());
  EXPECT_TRUE(fake().derived.empty());
}

TEST_F(TokenTest, RefusesResultsThatCantBeRight) {
  start();
  for (const CK_ULONG length : {CK_ULONG{0}, CK_ULONG{31}, CK_ULONG{33}, CK_UNAVAILABLE_INFORMATION}) {
    fake().derivedLength = length;
    const auto done = deriveOnce();
    ASSERT_FALSE(done) << length;
    EXPECT_EQ(done.error().status, Status::BadResult);
  }
  fake().derivedLength = 32;
  fake().derivesZero = true;
  EXPECT_EQ(deriveOnce().error().status, Status::BadResult);
}

TEST_F(TokenTest, AKeyThatAnswersWrongIsNotProved) {
  fake().flipsResults = true;
  start();
  for (const TokenKey& key : token_->keys()) EXPECT_EQ(key.info.proof, Status::BadResult);
}

TEST_F(TokenTest, AKeyThatTheProbeDiedOfIsNotTouched) {
  auto facts = findToken(module_, *parsePkcs11Uri("pkcs11:token=fake"));
  token_.emplace(module_, *facts, pin_, board_, Token::Options{});
  ASSERT_TRUE(token_->open(LoginMode::Automatic));
  ASSERT_TRUE(token_->findKeys());
  for (const KeyTrial& trial : trialsOf(token_->keys()[0])) {
    ASSERT_TRUE(board_.begin(trial.name));
    ASSERT_TRUE(board_.abandon(hsm::Trial::Crashed));
  }
  ASSERT_TRUE(probeKeys(module_, *facts, board_));
  fake().calls.clear();
  ASSERT_TRUE(token_->findKeys());
  EXPECT_EQ(token_->keys()[0].info.proof, Status::ModuleFailed);
  EXPECT_EQ(token_->keys()[1].info.proof, Status::Ok);
  EXPECT_EQ(fake().calls["C_DeriveKey"], 2) << "the second key's public key and proof alone";
}

TEST_F(TokenTest, ATokenThatGoesAwayWhileItIsProbedIsProbedAgain) {
  auto facts = findToken(module_, *parsePkcs11Uri("pkcs11:token=fake"));
  token_.emplace(module_, *facts, pin_, board_, Token::Options{});
  ASSERT_TRUE(token_->open(LoginMode::Automatic));
  failNext("C_DeriveKey", CKR_OBJECT_HANDLE_INVALID);  // SoftHSM's way to say it
  failNext("C_GetTokenInfo", CKR_GENERAL_ERROR);
  const auto probed = probeKeys(module_, *facts, board_);
  ASSERT_FALSE(probed);
  EXPECT_EQ(probed.error().status, Status::DeviceRemoved);
  EXPECT_EQ(fake().calls["C_DeriveKey"], 1) << "nothing more is tried";
  ASSERT_TRUE(probeKeys(module_, *facts, board_));
  ASSERT_TRUE(token_->findKeys());
  for (const TokenKey& key : token_->keys()) EXPECT_EQ(key.info.proof, Status::Ok);
}

TEST_F(TokenTest, AKeyThatTheTokenHandlesBadlyDoesntKeepTheOthersFromStarting) {
  auto facts = findToken(module_, *parsePkcs11Uri("pkcs11:token=fake"));
  token_.emplace(module_, *facts, pin_, board_, Token::Options{});
  ASSERT_TRUE(token_->open(LoginMode::Automatic));
  fake().answers["C_DeriveKey"] = {CKR_DEVICE_ERROR, CKR_DEVICE_ERROR};  // the first key's two forms
  ASSERT_TRUE(probeKeys(module_, *facts, board_));
  ASSERT_TRUE(token_->findKeys());
  EXPECT_EQ(token_->keys()[0].info.proof, Status::DeviceRemoved);
  EXPECT_EQ(token_->keys()[1].info.proof, Status::Ok);
  // The next start tries it again.
  ASSERT_TRUE(probeKeys(module_, *facts, board_));
  ASSERT_TRUE(token_->findKeys());
  EXPECT_EQ(token_->keys()[0].info.proof, Status::Ok);
}

TEST_F(TokenTest, LoggingOutForgetsThePin) {
  start();
  token_->logOut();
  EXPECT_EQ(pin_.state, PinState::Missing);
  EXPECT_EQ(pin_.length, 0U);
}

TEST_F(TokenTest, NeverDerivesWithCkkEcOfOtherParameters) {
  fake().keys[100].type = CKK_EC;  // what SoftHSM dies of
  fake().keys[101].type = CKK_EC;
  fake().keys[101].parameters = rowOf(Spelling::EdwardsName).parameters;
  start();
  for (const TokenKey& key : token_->keys()) EXPECT_EQ(key.info.kind, KeyKind::Other);
  EXPECT_EQ(fake().calls["C_DeriveKey"], 0);
}

TEST_F(TokenTest, KnowsAnExtractableKey) {
  fake().keys[100].sensitive = false;
  start();
  EXPECT_TRUE(token_->keys()[0].info.extractable);
  EXPECT_FALSE(token_->keys()[1].info.extractable);
}

TEST_F(TokenTest, TakesNoMoreLinesThanThereAreSessions) {
  start();
  EXPECT_EQ(token_->openLines(4).size(), 4U);
  fake().sessionLimit = fake().sessions.size() + 2;
  EXPECT_EQ(token_->openLines(4).size(), 2U);
  EXPECT_EQ(token_->openLines(4).size(), 0U);
}

TEST_F(TokenTest, HeedsTheLimitThatATokenTells) {
  fake().maxSessions = 5;
  start();
  EXPECT_EQ(token_->openLines(8).size(), 3U);
  fake().maxSessions = CK_EFFECTIVELY_INFINITE;
}

TEST_F(TokenTest, ATokenThatGivesNoSessionSaysSo) {
  start();
  fake().sessionLimit = fake().sessions.size();
  const auto done = deriveOnce();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().status, Status::SessionLimit);
  EXPECT_EQ(token_->lost(), Status::Ok);
}

TEST_F(TokenTest, LoggedOutItDoesNothing) {
  start();
  token_->logOut();
  EXPECT_EQ(deriveOnce().error().status, Status::NotLoggedIn);
}

// --- finding the token -----------------------------------------------------------------------------------------------

TEST(FindToken, MatchesWhatTheUriNames) {
  const Module module = freshModule();
  for (const char* uri : {"pkcs11:token=fake", "pkcs11:serial=0001", "pkcs11:model=fake;manufacturer=tests"})
    EXPECT_TRUE(findToken(module, *parsePkcs11Uri(uri))) << uri;
  for (const char* uri : {"pkcs11:token=fak", "pkcs11:token=fake%20", "pkcs11:token=fake;serial=0002"})
    EXPECT_EQ(findToken(module, *parsePkcs11Uri(uri)).error().status, Status::NoToken) << uri;
}

TEST(FindToken, SkipsOneThatIsNotInitialised) {
  const Module module = freshModule();
  fake().flags &= ~CK_FLAGS{CKF_TOKEN_INITIALIZED};
  EXPECT_EQ(findToken(module, *parsePkcs11Uri("pkcs11:token=fake")).error().status, Status::NoToken);
}

TEST(FindToken, BelievesNoSlotCount) {
  const Module module = freshModule();
  fake().answers["C_GetSlotList"] = {CKR_BUFFER_TOO_SMALL};
  EXPECT_EQ(findToken(module, *parsePkcs11Uri("pkcs11:token=fake")).error().status, Status::AmbiguousToken);
}

TEST(ModuleTest, IsAskedAgainWithoutThreadsIfItCantLock) {
  Module module = freshModule();
  fake().answers["C_Initialize"] = {CKR_CANT_LOCK};
  EXPECT_TRUE(module.initialise(""));
  EXPECT_FALSE(module.threadSafe());
}

TEST(ModuleTest, ThatDoesntInitialiseIsNone) {
  Module module = freshModule();
  fake().answers["C_Initialize"] = {CKR_GENERAL_ERROR};
  EXPECT_EQ(module.initialise("").error().status, Status::NoModule);
}

TEST(ModuleTest, IsLoadedByAbsolutePathAlone) {
  EXPECT_EQ(Module::load("libsofthsm2.so", "").error().status, Status::NoModule);
  EXPECT_EQ(Module::load("/does/not/exist.so", "").error().status, Status::NoModule);
}

}  // namespace
}  // namespace sallyport::hsmd
