// keys.h - the keys of a token: found, told apart, and proved. Part of: hsmd (worker and probe).
// What must never happen here: a key of CKK_EC with parameters that aren't NSS's is used for anything.
#pragma once

#include "hsmd/board.h"
#include "hsmd/operations.h"

namespace sallyport::hsmd {

struct TokenKey {
  hsm::KeyInfo info;         // index and count are the list's business
  CK_OBJECT_HANDLE use = 0;  // the secret one; 0: it is gone
  CK_OBJECT_HANDLE open = 0;
  bool hasPublicKey = false;  // else it is asked of the token by a derive with the base point

  bool isSame(const TokenKey& other) const {
    return info.kind == other.info.kind && info.id == other.info.id && info.label == other.info.label;
  }
  size_t modulusBytes() const { return info.bits / 8U; }
  CK_OBJECT_HANDLE wrapHandle() const { return info.kind == hsm::KeyKind::Rsa ? open : use; }
};

// All keys of the token that the session sees, unproved. `copies`: work with copies that live in this session.
Outcome<std::vector<TokenKey>> findKeys(const Session& session, bool copies);
// What is to be known of one object. `open`: its public half; 0: the one with the same id, if there is just one.
std::optional<TokenKey> readKey(const Session& session, CK_OBJECT_HANDLE object, CK_OBJECT_HANDLE open = 0);

// One way of using one key, to be tried where it does no harm.
struct KeyTrial {
  std::string name;  // on the board
  hsm::KeyKind kind;
  hsm::PointForm form = hsm::PointForm::Raw;
  hsm::WrapAlgorithm algorithm = hsm::WrapAlgorithm::Gcm;
};
std::vector<KeyTrial> trialsOf(const TokenKey& key);
// The known answer for it. Fills in the public key of an X25519 key that has none.
Outcome<void> prove(const Session& session, TokenKey& key, const KeyTrial& trial);

// Takes from the board how the key may be used, and proves just that once more in this process.
void settle(const Session& session, TokenKey& key, const Board& board);

}  // namespace sallyport::hsmd
