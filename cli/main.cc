// main.cc - sallyport, the program for people. Process: cli; it holds no socket of a peer, and a secret only in `key`.
// The table below is the whole command line (docs/man/sallyport.1). Exit status: 0 done, 1 refused or failed, 2 usage.
// lint: size: one table, a command after the other with its help; a split would only hide that
#include <fcntl.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include <kj/exception.h>
#include <sodium.h>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/daemon_client.h"
#include "cli/terminal.h"

namespace sallyport::cli {
namespace {

constexpr size_t ANY = 64;

#define SEAL_OPTIONS "--passphrase", "--passphrase-file=", "--credential="
#define MAKE_OPTIONS "--kind=", "--party=", "--exportable", "--allow-backup"
#define PIN_OPTIONS "--pin-file=", "--pin-fd=", "--force"
#define OPEN_OPTIONS "--passphrase-file=", "--credential=", "--recovery", "--shares=", "--token=", PIN_OPTIONS
#define PIN_HELP \
  "\n" \
  "The PIN, if the configuration says \"ask\": from the terminal, or\n" \
  "  --pin-file FILE  its first line\n" \
  "  --pin-fd N       what this open descriptor gives\n" \
  "  --force          even if the token says that it is the last try\n"
#define OPEN_HELP \
  "\n" \
  "What opens the file:\n" \
  "  --passphrase-file FILE  its first line; else [vault] passphrase_file, else the terminal is asked\n" \
  "  --credential NAME=FILE  the content of FILE; else what systemd gives\n" \
  "  --recovery              the recovery passphrase, asked for or from --passphrase-file\n" \
  "  --shares FILE           the lines of enough shares; `-`: from standard input\n" \
  "  --token NAME            this token, when there is a passphrase too\n"

const Command COMMANDS[] = {
    {"up",
     "",
     "run vault and net daemon in the foreground, from one file",
     {},
     0,
     0,
     up,
     "Starts vaultd, then netd, waits until both serve and says so in one line on standard error: `sallyport: ready "
     "…`.\n"
     "A daemon that dies later is started again, after 100 ms and up to 5 s. SIGTERM and SIGINT let netd finish its\n"
     "connections, then stop both; SIGHUP does what `sallyport reload` does.\n"
     "\n"
     "  sallyport up -c /etc/sallyport/sallyport.toml\n"},
    {"check",
     "",
     "check a configuration: what would listen, dial and be allowed",
     {},
     0,
     0,
     check,
     "Names everything that is wrong. Also looks at the key files. Exit status 1 if the daemons would not start with "
     "it.\n"},
    {"reload",
     "",
     "make running daemons take up a changed configuration",
     {},
     0,
     0,
     reload,
     "Adds and revokes peers and entries without dropping other connections. The file is checked first; if the vault\n"
     "refuses it, netd doesn't see it. Exit status 1, with a warning for each part, if not all of it is in force: a "
     "key that\n"
     "the vault hasn't loaded, for one, takes a restart of vaultd.\n"},
    {"status",
     "[--json]",
     "what both daemons do, and what holds them",
     {"--json"},
     0,
     0,
     status,
     "Sandbox layers of each process, keys, entries, limits, counters. Exit status 1 if a daemon doesn't answer.\n"},
    {"pipe",
     "NAME [--protocol curve|peer] [--messages [--wait SECONDS]] | --wire NAME [--protocol curve|peer]",
     "standard input and output through a [[connect]] entry",
     {"--messages", "--protocol=", "--wait=", "--wire"},
     1,
     1,
     pipeChannel,
     "A stream: the end of the input is told to the peer, and the command ends when both directions have ended. A "
     "stream\n"
     "that is cut off is an error, never a silent end.\n"
     "\n"
     "  --messages       whole messages instead: on both sides a 4-byte big-endian length, then the bytes:\n"
     "                   0 to 65503, in the peer protocol to `max_frame_bytes`, and at most 2093056.\n"
     "                   In hard mode it ends when both sides have ended their messages, else as --wait says.\n"
     "  --wait SECONDS   with --messages: after the end of the input, go on until nothing came for so long\n"
     "                   (default 5; 0: until the peer closes). A message that stops half-way is an error.\n"
     "                   So is a peer that hasn't ended, in hard mode; there the default is to wait for it\n"
     "  --protocol P     refuse an entry that doesn't speak `curve` or `peer`; left out, it is what the entry says\n"
     "  --wire           the encrypted side of the [[listen]] entry NAME, to be carried inside something else:\n"
     "                   `ssh host sallyport pipe --wire NAME`\n"
     "\n"
     "  ssh -o ProxyCommand='sallyport pipe ssh' host\n"
     "  tar c . | sallyport pipe backup\n"},
    {"pair",
     "NAME --connect ENTRY | --listen ENTRY | --to PEER | --from PEER | --confirm FINGERPRINT",
     "give two hosts a fresh block for `protocol = \"peer\"`",
     {"--keys=", SEAL_OPTIONS, "--recovery",
      "--shares=", "--connect=", "--listen=", "--to=", "--from=", "--key=", "--confirm=", "--party=", "--wait="},
     1,
     1,
     pair,
     "NAME becomes a key of the kind peer-block on both hosts, party A on the one and B on the other; if it is there, "
     "it\n"
     "gets one more version. The block travels sealed from vault to vault, so both need a [[grant]] to box and open.\n"
     "\n"
     "  --connect ENTRY         through this [[connect]] entry of protocol curve\n"
     "  --listen ENTRY          the other host's part of it: a [[listen]] entry with service \"channel\"\n"
     "  --wait DURATION         with --listen: how long (default 300s)\n"
     "  --to PEER --key OWN     prints a file that only PEER can open, sealed with our key OWN\n"
     "  --from PEER --key OWN   takes such a file from standard input, once\n"
     "  --confirm FINGERPRINT   use the block from now on: the other host has it\n"
     "  --party A|B             which party this host is (default A where the block is made)\n"
     "Sealed as the options of `key new` say.\n"
     "\n"
     "  hq$ sallyport pair branch --listen pairing\n"
     "  branch$ sallyport pair branch --connect hq-pairing\n"},
    {"box",
     "KEY --to PEER... [-a] [-o FILE] [FILE]",
     "box a file of any size to peers, through the vault",
     {"--to=*", "--armor", "--output=", "--socket="},
     1,
     2,
     boxFile,
     "From the vault's key KEY to one or more peers, each of whom can open it and knows who made it. Without FILE, or "
     "as "
     "`-`:\n"
     "standard input.\n"
     "\n"
     "  --to PEER          a name in [peers] or a public key; up to 64\n"
     "  -a, --armor        as text, for mail or a terminal; `sallyport open` knows both\n"
     "  -o, --output FILE  appears when it is whole; without it, or as `-`: standard output, but no terminal\n"
     "  --socket NAME      ask at this [[vault_socket]]; without it at [vault] socket\n"
     "\n"
     "  tar c . | sallyport box laptop --to archive -o home.box\n"},
    {"open",
     "KEY [--from PEER] [-o FILE] [FILE]",
     "open a boxed file, and say who made it",
     {"--from=", "--output=", "--socket="},
     1,
     2,
     openFile,
     "With the vault's key KEY. No byte is written that isn't genuine and in its place; a file that is cut off is an "
     "error.\n"
     "\n"
     "  --from PEER        a name in [peers] or a public key: who must have made it; without it: any of [peers]\n"
     "  -o, --output FILE  appears when the whole file has been opened; without it, or as `-`: standard output\n"
     "  --socket NAME      ask at this [[vault_socket]]; without it at [vault] socket\n"
     "\n"
     "  sallyport open archive --from laptop home.box | tar x\n"},
    {"sign",
     "KEY [-o FILE] [FILE]",
     "make a detached signature of a file of any size",
     {"--output=", "--socket="},
     1,
     2,
     signFile,
     "By the vault's Ed25519 key KEY: three lines of text.\n"
     "\n"
     "  -o, --output FILE  without it, or as `-`: standard output\n"
     "  --socket NAME      ask at this [[vault_socket]]; without it at [vault] socket\n"
     "\n"
     "  sallyport sign release -o sallyport.tar.xz.sig sallyport.tar.xz\n"},
    {"verify",
     "SIGNATURE [FILE]  --from SIGNER | --key KEY",
     "is the signature genuine, and by whom it should be?",
     {"--from=", "--key="},
     1,
     2,
     verifyFile,
     "Exit status 1 if not. No daemon is asked, and with --key no configuration.\n"
     "\n"
     "  --from SIGNER  a name in [signers]\n"
     "  --key KEY      the signer's public key, as `sallyport key show` prints it\n"
     "\n"
     "  sallyport verify --from release sallyport.tar.xz.sig sallyport.tar.xz\n"},
    {"lock",
     "[KEY]",
     "make a running vault forget a key, or all of them",
     {},
     0,
     1,
     lockVault,
     "Its secrets are wiped, and its uses refused until `sallyport unlock`. Established sessions go on.\n"},
    {"unlock",
     "[KEY...]",
     "give keys back to a running vault",
     {OPEN_OPTIONS},
     0,
     ANY,
     unlockVault,
     "Without names: all that are locked. The passphrase is asked for here, as for `key rotate`, and never sent.\n"},
    {"panic",
     "",
     "make a running vault wipe every secret at once",
     {},
     0,
     0,
     panicVault,
     "The vault goes on answering `locked`. `sallyport unlock` brings the keys back.\n"},
    {"key new",
     "NAME [--passphrase]",
     "make a key; print its public half",
     {"--keys=", SEAL_OPTIONS, MAKE_OPTIONS},
     1,
     1,
     keyNew,
     "  --kind KIND             x25519 for tunnels and boxes (default), ed25519 for signatures,\n"
     "                          peer-block for `protocol = \"peer\"` (`sallyport pair` makes it on both hosts)\n"
     "  --party A|B             of a peer-block: which of the two parties this host is\n"
     "  --passphrase            seal the file by a passphrase (Argon2id), asked for on the terminal\n"
     "  --passphrase-file FILE  seal it by the first line of FILE\n"
     "  --credential NAME=FILE  seal it by the content of FILE, which systemd will hand to vaultd as the credential "
     "NAME\n"
     "  --exportable            `key export` may give the secret out, for good\n"
     "  --allow-backup          `key backup` may, sealed, for good\n"},
    {"key list", "", "names, public halves, and how the files are protected", {"--keys="}, 0, 0, keyList, ""},
    {"key show",
     "NAME [VERSION]",
     "print the public half alone",
     {"--keys=", "--versions"},
     1,
     2,
     keyShow,
     "Of the active version, or of the one that is named.\n"
     "\n"
     "  --versions   all versions instead, with their states and times\n"
     "\n"
     "  sallyport peer add server \"$(ssh server sallyport key show server)\"\n"},
    {"key import",
     "NAME [--kind KIND] [--party A|B] [--unused] [--wrapped]",
     "take a secret in base64 or hex from standard input",
     {"--keys=", SEAL_OPTIONS, MAKE_OPTIONS, "--wrapped", "--unused"},
     1,
     1,
     keyImport,
     "Sealed as the options of `key new` say. From a terminal the secret is read without echo.\n"
     "\n"
     "  --kind KIND  x25519 (default), ed25519 or peer-block; wrapped, the input itself says it\n"
     "  --party A|B  of a peer-block: which of the two parties this host is\n"
     "  --wrapped    the input was wrapped to the import key of this folder, which is destroyed then\n"
     "  --unused     of a peer-block: no connection was ever opened with it, so base mode may use it, once\n"},
    {"key import-key", "", "print the one-time key to which another host wraps", {"--keys="}, 0, 0, keyImportKey, ""},
    {"key wrap",
     "IMPORT_KEY",
     "wrap a secret from standard input to another host's import key",
     {"--kind="},
     1,
     1,
     keyWrap,
     "Prints one line for `key import --wrapped` there. For a key of this folder: `key export --to`.\n"},
    {"key rotate",
     "NAME | --due",
     "add a version that takes over; the old one still opens for a while",
     {"--keys=", OPEN_OPTIONS, "--activate-in=", "--grace=", "--due", "--import", "--unused"},
     0,
     1,
     keyRotate,
     "  --activate-in DURATION   the new version waits so long: `2d` (default: at once)\n"
     "  --grace DURATION         the old one opens so long after that (default: [key.NAME] grace, else 7d)\n"
     "  --import                 the new secret comes from standard input; --unused as for `key import`\n"
     "  --due                    all keys whose [key.NAME] rotate_every is over; and what is destroyed leaves the "
     "files\n" OPEN_HELP},
    {"key retire",
     "NAME VERSION",
     "end the grace of a version, or take a pending one back",
     {"--keys=", OPEN_OPTIONS},
     2,
     2,
     keyRetire,
     OPEN_HELP},
    {"key delete",
     "NAME [VERSION]",
     "stop using a key, and destroy it after a while",
     {"--keys=", OPEN_OPTIONS, "--window="},
     1,
     2,
     keyDelete,
     "  --window DURATION   until it is destroyed (default 7d); `key undelete` brings it back before\n" OPEN_HELP},
    {"key undelete",
     "NAME [VERSION]",
     "take a deletion back while its window is open",
     {"--keys=", OPEN_OPTIONS},
     1,
     2,
     keyUndelete,
     OPEN_HELP},
    {"key passphrase",
     "NAME [--remove]",
     "set, change or remove a key's passphrase",
     {"--keys=", OPEN_OPTIONS, "--new-passphrase-file=", "--remove"},
     1,
     1,
     keyPassphrase,
     "  --new-passphrase-file FILE  the one it gets; else the terminal is asked\n"
     "  --remove                    a plain file of mode 0600 from now on\n" OPEN_HELP},
    {"key slot list", "NAME", "what opens a key's file", {"--keys="}, 1, 1, keySlotList, ""},
    {"key slot add",
     "NAME KIND",
     "let something else open it too",
     {"--keys=", OPEN_OPTIONS, "--new-passphrase-file=", "--new-credential=", "--split="},
     2,
     2,
     keySlotAdd,
     "  passphrase   [--new-passphrase-file FILE]\n"
     "  recovery     a passphrase that is made here and printed once, for the drawer\n"
     "  credential   --new-credential NAME=FILE\n"
     "  shares       --split NEEDED/TOTAL: a line for each of TOTAL people, printed once; NEEDED of them open "
     "it\n" OPEN_HELP},
    {"key slot remove",
     "NAME SLOT",
     "let something open it no more",
     {"--keys=", OPEN_OPTIONS},
     2,
     2,
     keySlotRemove,
     OPEN_HELP},
    {"key allow-export",
     "NAME",
     "let a key be exported, for good",
     {"--keys=", OPEN_OPTIONS},
     1,
     1,
     keyAllowExport,
     OPEN_HELP},
    {"key allow-backup",
     "NAME",
     "let a key be backed up, for good",
     {"--keys=", OPEN_OPTIONS},
     1,
     1,
     keyAllowBackup,
     OPEN_HELP},
    {"key export",
     "NAME [VERSION]",
     "give the secret out, if the key allows it",
     {"--keys=", OPEN_OPTIONS, "--to="},
     1,
     2,
     keyExport,
     "  --to IMPORT_KEY   wrapped to another host; else base64, not on a terminal\n" OPEN_HELP},
    {"key backup",
     "NAME FILE",
     "write a sealed backup of all its versions, if the key allows it",
     {"--keys=", OPEN_OPTIONS, "--new-passphrase-file=", "--new-recovery"},
     2,
     2,
     keyBackup,
     "  --new-passphrase-file FILE  what it is sealed to; else the terminal is asked\n"
     "  --new-recovery              a passphrase that is made here and printed once\n" OPEN_HELP},
    {"key restore",
     "FILE",
     "bring a backup back; its nonces begin anew",
     {"--keys=", SEAL_OPTIONS, "--backup-passphrase-file="},
     1,
     1,
     keyRestore,
     "  --backup-passphrase-file FILE   what opens the backup; else the terminal is asked\n"
     "Sealed by the options of `key new`.\n"},
    {"key export-public",
     "[NAME...]",
     "print lines for the [peers] of another host",
     {"--keys="},
     0,
     ANY,
     keyExportPublic,
     ""},
    {"hsm probe",
     "TOKEN",
     "try what a token and its module can do, and say which mode to use",
     {PIN_OPTIONS},
     1,
     1,
     hsmProbe,
     "TOKEN is a [token.NAME] of the configuration. Each trial runs in a process of its own: a module may "
     "crash.\n" PIN_HELP},
    {"hsm init-key",
     "NAME --token TOKEN",
     "make a key that never leaves the token; print its public half",
     {"--keys=", "--token=", "--kind=", "--allow-backup", SEAL_OPTIONS, PIN_OPTIONS},
     1,
     1,
     hsmInitKey,
     "The file of the key holds no secret of it, but what its nonces are made from; seal it as `key new` does.\n"
     "\n"
     "  --kind KIND   x25519 for tunnels and boxes (default), ed25519 for signatures\n" PIN_HELP},
    {"hsm import",
     "NAME --token TOKEN",
     "put a secret from standard input into the token",
     {"--keys=", "--token=", "--kind=", "--allow-backup", SEAL_OPTIONS, PIN_OPTIONS},
     1,
     1,
     hsmImport,
     "In base64 or hex, as `key import` takes it. It can't be taken out again; wipe where it came from.\n" PIN_HELP},
    {"hsm seal",
     "NAME --token TOKEN",
     "let a token open a key's file",
     {"--keys=", OPEN_OPTIONS},
     1,
     1,
     hsmSeal,
     "For tokens that can't derive: the token wraps a random secret that opens the file (AES-GCM, else "
     "RSA-OAEP).\n" OPEN_HELP PIN_HELP},
    {"hsm status",
     "",
     "the tokens of a running vault, and their keys",
     {},
     0,
     0,
     hsmStatus,
     "Exit status 1 if one isn't up.\n"},
    {"hsm unlock", "TOKEN", "give a running vault a token's PIN", {PIN_OPTIONS}, 1, 1, hsmUnlock, PIN_HELP},
    {"audit verify",
     "[FILE...] [--head SEQ:HASH]",
     "is the vault's audit log whole, and its own?",
     {"--folder=", "--key=", "--head="},
     0,
     ANY,
     auditVerify,
     "Of the vault's folder, compared with what a running vault knows; or of exported files. What is changed, missing, "
     "out\n"
     "of order or foreign is told with its file and line, and the exit status is 1.\n"
     "\n"
     "  --folder DIR     the folder; else [audit] folder of the configuration\n"
     "  --key FILE       verify.key, kept elsewhere: finds records that the vault didn't write; else the folder's own\n"
     "  --head SEQ:HASH  a head that was noted before: finds a log that was cut off or written anew\n"},
    {"audit tail",
     "[-n LINES] [-f]",
     "the last records, for people",
     {"--folder=", "--lines=", "--follow"},
     0,
     0,
     auditTail,
     "  -n, --lines N    so many; 10 by default\n"
     "  -f, --follow     and those that come, until interrupted\n"},
    {"audit export",
     "[--since SEQ|TIME] [--mark]",
     "print the records as they are, one JSON object a line",
     {"--folder=", "--since=", "--mark"},
     0,
     0,
     auditExport,
     "  --since SEQ|TIME  from this record, or from the first one at or after this time (UTC) on\n"
     "  --mark            then tell the vault: files of exported records may be overwritten ([audit] when_full)\n"
     "\n"
     "  sallyport audit export --mark > audit-2026-11.jsonl && sallyport audit verify --key verify.key "
     "audit-*.jsonl\n"},
    {"peer add",
     "NAME KEY",
     "add a line to [peers]; the rest of the file stays as it is",
     {},
     2,
     2,
     peerAdd,
     "Running daemons learn of it by `sallyport reload`.\n"},
    {"peer list", "", "names and keys of [peers]", {}, 0, 0, peerList, ""},
    {"peer remove",
     "NAME",
     "remove a line from [peers], unless an entry uses it",
     {},
     1,
     1,
     peerRemove,
     "Running daemons learn of it by `sallyport reload`, which ends the peer's sessions.\n"},
    {"policy check",
     "VERB KEY [PEER|DOMAIN] --user USER",
     "may this user's programs do that with this key?",
     {"--user=", "--group=", "--socket=", "--bytes="},
     2,
     3,
     policyCheck,
     "Says yes and by which [[grant]], or no and why; the exit status is 0 or 1. VERB is box, open, sign or "
     "fresh_nonce; a\n"
     "PEER is a name in [peers], a public key, or `any` (and for sealed boxes).\n"
     "\n"
     "  --user USER    whose programs: a name or a number; their groups are looked up\n"
     "  --group GROUP  and a member of this one\n"
     "  --socket NAME  connected to this [[vault_socket]]; without it to [vault] socket\n"
     "  --bytes N      with a text of N bytes\n"
     "\n"
     "  sallyport policy check box backup alice --user 1001\n"},
};

int runCommand(const std::vector<std::string>& words) {
  const auto invocation = parseCommandLine(COMMANDS, words);
  switch (invocation.kind) {
    case Invocation::Kind::Mistake: return failUsage(invocation.problem, invocation.hint);
    case Invocation::Kind::Version: putLine("sallyport " SALLYPORT_VERSION); return finishOutput();
    case Invocation::Kind::Help:
      put(invocation.command != nullptr ? helpFor(*invocation.command)
          : invocation.group.empty()    ? helpForAll(COMMANDS)
                                        : helpForGroup(COMMANDS, invocation.group));
      return finishOutput();
    case Invocation::Kind::Run: break;
  }
  try {
    return invocation.command->run(invocation.arguments);
  } catch (const kj::Exception& e) { return fail(describeFailure(e)); } catch (const std::exception& e) {
    return fail(e.what());
  }
}

}  // namespace
}  // namespace sallyport::cli

int main(int argc, char** argv) {
  // Started with one of them closed, we would soon open a socket or a key file under its number. What is written to a
  // standard output that isn't there fails, as to a full disk: it must not be lost in silence.
  for (const int fd : {0, 1, 2}) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) != fd)
      return sallyport::cli::EXIT_FAILED;
  }
  // A closed pipe is an error of write(), told as any other.
  std::signal(SIGPIPE, SIG_IGN);
  if (sodium_init() < 0) return sallyport::cli::fail("libsodium can't start");
  return sallyport::cli::runCommand({argv + 1, argv + argc});
}
