// client_c.c - what C programs do to libsallyport, right and wrong. Run by clients_test.py against a real vaultd.
#include <sallyport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, sallyport_last_error()); \
      exit(1); \
    } \
  } while (0)

static void count_keys(const sallyport_granted_key *key, void *context) {
  EXPECT(strcmp(key->name, "backup") == 0 && strcmp(key->kind, "x25519") == 0 && key->public_key != NULL);
  EXPECT((key->verbs & SALLYPORT_VERB_BOX) != 0 && strcmp(key->grants[0], "backup") == 0 && key->grants[1] == NULL);
  ++*(int *)context;
}

static void null_arguments(sallyport_vault *vault, sallyport_key *key, const char *path) {
  const int bad = SALLYPORT_BAD_ARGUMENT;
  sallyport_vault *other_vault = NULL;
  sallyport_key *other_key = NULL;
  uint8_t bytes[32];
  unsigned verbs;
  uint64_t lease;
  EXPECT(sallyport_connect(NULL, 0, &other_vault) == bad && sallyport_connect(path, 0, NULL) == bad);
  EXPECT(sallyport_ping(NULL) == bad);
  EXPECT(sallyport_public_key(NULL, "backup", bytes) == bad && sallyport_public_key(vault, NULL, bytes) == bad);
  EXPECT(sallyport_public_key(vault, "backup", NULL) == bad);
  EXPECT(sallyport_keys(NULL, count_keys, NULL) == bad && sallyport_keys(vault, NULL, NULL) == bad);
  EXPECT(sallyport_key_open(NULL, "backup", 0, 0, &other_key) == bad);
  EXPECT(sallyport_key_open(vault, NULL, 0, 0, &other_key) == bad && sallyport_key_open(vault, "backup", 0, 0, NULL) == bad);
  EXPECT(sallyport_key_verbs(NULL, &verbs) == bad && sallyport_key_verbs(key, NULL) == bad);
  EXPECT(sallyport_key_lease(NULL, &lease) == bad && sallyport_key_lease(key, NULL) == bad);
  EXPECT(sallyport_key_renew(NULL, 0) == bad);
  EXPECT(sallyport_box(NULL, NULL, 0) == bad && sallyport_box(key, NULL, 1) == bad && sallyport_box(key, NULL, 0) == 0);
  EXPECT(sallyport_open(NULL, NULL, 0) == bad && sallyport_open(key, NULL, 1) == bad);
  EXPECT(sallyport_open_sealed(NULL, NULL, 0) == bad && sallyport_sign(NULL, NULL, 0) == bad);
  EXPECT(sallyport_verify(NULL, NULL, 0) == bad);
  EXPECT(sallyport_fresh_nonces(NULL, "minute-k", 1, bytes) == bad && sallyport_fresh_nonces(key, NULL, 1, bytes) == bad);
  EXPECT(sallyport_fresh_nonces(key, "minute-k", 1, NULL) == bad);
  sallyport_disconnect(NULL);
  sallyport_key_close(NULL);
}

static void items(sallyport_key *key) {
  unsigned char box[5 + SALLYPORT_BOX_OVERHEAD];
  unsigned char text[5];
  sallyport_box_item item = {.peer_name = "alice", .text = "hello", .text_size = 5, .box = box, .box_size = sizeof box - 1};
  EXPECT(sallyport_box(key, &item, 1) == SALLYPORT_BUFFER_TOO_SMALL && item.box_size == sizeof box);
  EXPECT(sallyport_box(key, &item, 1) == SALLYPORT_OK && item.version != 0);  // box_size said what is needed
  EXPECT(memcmp(item.nonce, "SallyBox", 8) == 0);

  sallyport_open_item back = {.peer_name = "alice", .nonce = item.nonce, .nonce_size = sizeof item.nonce, .box = box,
                              .box_size = item.box_size, .text = text, .text_size = 0};
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_BUFFER_TOO_SMALL && back.text_size == 5);
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_OK && memcmp(text, "hello", 5) == 0);
  back.box_size = 15;
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_BAD_SIZE);
  back.box_size = sizeof box;
  back.text = NULL;
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_BUFFER_TOO_SMALL);
  back.text = text;
  back.text_size = sizeof text;
  back.nonce = NULL;
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_BAD_ARGUMENT);
  back.nonce_size = 0;
  EXPECT(sallyport_open(key, &back, 1) == SALLYPORT_BAD_NONCE);  // what is there and how long: the vault's to judge

  // A peer is a name or a key: neither, and both, are the caller's mistake; the other items don't mind.
  sallyport_box_item three[3];
  for (int i = 0; i < 3; ++i) three[i] = item;
  three[1].peer_name = NULL;
  three[2].peer_key = box;
  three[2].peer_key_size = 32;
  EXPECT(sallyport_box(key, three, 3) == SALLYPORT_BAD_ARGUMENT);
  EXPECT(three[0].code == SALLYPORT_OK && three[1].code == SALLYPORT_BAD_ARGUMENT && three[2].code == SALLYPORT_BAD_ARGUMENT);
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  sallyport_vault *vault = (sallyport_vault *)argv;
  EXPECT(sallyport_connect("/nonexistent", 0, &vault) == SALLYPORT_CANT_CONNECT && vault == NULL);
  EXPECT(strstr(sallyport_last_error(), "/nonexistent: No such file") != NULL);
  EXPECT(sallyport_connect(argv[1], 5000, &vault) == SALLYPORT_OK && sallyport_ping(vault) == SALLYPORT_OK);

  sallyport_key *key = (sallyport_key *)argv;
  EXPECT(sallyport_key_open(vault, "nobody", 0, 0, &key) == SALLYPORT_NOT_PERMITTED && key == NULL);
  EXPECT(sallyport_key_open(vault, "backup", SALLYPORT_VERB_BOX | SALLYPORT_VERB_OPEN | SALLYPORT_VERB_FRESH_NONCE, 0, &key) == 0);
  unsigned verbs = 0;
  EXPECT(sallyport_key_verbs(key, &verbs) == 0 && verbs == (SALLYPORT_VERB_BOX | SALLYPORT_VERB_OPEN | SALLYPORT_VERB_FRESH_NONCE));
  uint64_t lease = 1;
  EXPECT(sallyport_key_lease(key, &lease) == 0 && lease == 0);
  int keys = 0;
  EXPECT(sallyport_keys(vault, count_keys, &keys) == 0 && keys == 1);

  uint8_t one[32], opening[32];
  uint32_t version = 0;
  size_t count = 0;
  EXPECT(sallyport_public_key(vault, "backup", one) == 0);
  EXPECT(sallyport_public_keys(vault, "backup", &version, NULL, &count) == SALLYPORT_BUFFER_TOO_SMALL && count == 1 && version == 0);
  EXPECT(sallyport_public_keys(vault, "backup", &version, opening, &count) == 0 && count == 1 && version == 1);
  EXPECT(memcmp(one, opening, 32) == 0);
  EXPECT(sallyport_public_keys(vault, "backup", NULL, opening, &count) == 0);
  EXPECT(sallyport_public_keys(vault, "backup", NULL, NULL, &count) == SALLYPORT_BAD_ARGUMENT);
  EXPECT(sallyport_public_keys(vault, "backup", NULL, opening, NULL) == SALLYPORT_BAD_ARGUMENT);
  EXPECT(sallyport_public_keys(vault, "nobody", NULL, opening, &count) == SALLYPORT_UNKNOWN_KEY && count == 1);

  null_arguments(vault, key, argv[1]);
  items(key);

  EXPECT(strcmp(sallyport_error_name(SALLYPORT_NOT_PERMITTED), "notPermitted") == 0);
  EXPECT(strcmp(sallyport_error_name(0), "ok") == 0 && strcmp(sallyport_error_name(-5), "unknown") == 0);
  EXPECT(strlen(sallyport_strerror(12345)) > 0 && strlen(sallyport_version()) > 0);

  sallyport_key *orphan = NULL;
  EXPECT(sallyport_key_open(vault, "backup", 0, 0, &orphan) == 0);
  sallyport_key_close(&key);
  EXPECT(key == NULL);
  sallyport_key_close(&key);
  EXPECT(sallyport_key_renew(key, 0) == SALLYPORT_BAD_ARGUMENT);
  sallyport_disconnect(&vault);
  EXPECT(vault == NULL);
  sallyport_disconnect(&vault);
  EXPECT(sallyport_key_renew(orphan, 0) == SALLYPORT_CLOSED);
  sallyport_key_close(&orphan);
  puts("all good");
}
