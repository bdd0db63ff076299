// sandbox_probe_attacks.cc - what someone who has taken over a daemon would try. Part of: tests. lint: width: a table.
// Raw system calls throughout: the C library must not stand in the way.
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/system/sandbox_probe.h"

namespace sallyport::probe {

namespace {

constexpr long HIGH = 1L << 32;
constexpr unsigned X32 = 0x40000000;

char* page = nullptr;  // one page of ordinary memory
int fileFd = -1;       // a file that is open for reading
int streamFd = -1;     // one end of a connected Unix socket
int tcpFd = -1;        // a TCP socket, not connected
int listenFd = -1;     // a TCP listener, as the monitor hands over
uint16_t service = 0;  // the port of somebody else's service on this host
pid_t parentPid = 0;

long openPath(const char* path, int flags) { return syscall(SYS_openat, AT_FDCWD, path, flags, 0600); }

sockaddr_in localhost(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A listener that is shut down is an ordinary socket again, and a fast open connects it: no call named connect is
// needed.
long fastOpenByAddressInMemory() {
  auto to = localhost(service);
  iovec text{page, 1};
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = sizeof to;
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  syscall(SYS_shutdown, listenFd, SHUT_RDWR);
  return syscall(SYS_sendmsg, listenFd, &message, MSG_FASTOPEN | MSG_NOSIGNAL);
}

long fastOpenByAddress() {
  auto to = localhost(service);
  syscall(SYS_shutdown, listenFd, SHUT_RDWR);
  return syscall(SYS_sendto, listenFd, page, 1, MSG_FASTOPEN | MSG_NOSIGNAL, &to, sizeof to);
}

// Without an address it reaches nobody, but it is no flag of ours.
long fastOpenWithoutAddress() { return syscall(SYS_sendto, streamFd, page, 1, MSG_FASTOPEN, nullptr, 0); }

int listenOnLoopback() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto at = localhost(0);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) return -1;
  return listen(fd, 8) == 0 ? fd : -1;
}

long runProgram(const char* path) {
  const char* arguments[] = {path, nullptr};
  const char* environment[] = {nullptr};
  return syscall(SYS_execve, path, arguments, environment);
}

long foreignAbi() {
#ifdef __x86_64__
  long result;
  asm volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");  // getpid of i386
  return result;
#else
  kill(getpid(), SIGSYS);
  return 0;
#endif
}

constexpr End K = End::Killed;
constexpr End R = End::Refused;
constexpr End A = End::Allowed;
constexpr End S = End::Skip;

// clang-format off
constexpr Attack ATTACKS[] = {
    //                                                                                              vaultd worker monitor resolver
    // Files
    {"openat /etc/passwd", [] { return openPath("/etc/passwd", O_RDONLY); },                              K, K, A, A},
    {"openat / as folder", [] { return openPath("/", O_RDONLY | O_DIRECTORY); },                          K, K, R, R},
    {"openat /root/.profile", [] { return openPath("/root/.profile", O_RDONLY); },                        K, K, R, R},
    {"openat /etc/shadow", [] { return openPath("/etc/shadow", O_RDONLY); },                              K, K, R, R},
    {"openat /var/log", [] { return openPath("/var/log", O_RDONLY | O_DIRECTORY); },                      K, K, R, R},
    {"create a file in /tmp", [] { return openPath("/tmp/sandbox-probe", O_CREAT | O_WRONLY); },          K, K, R, R},
    {"write /etc/passwd", [] { return openPath("/etc/passwd", O_WRONLY); },                               K, K, R, R},
    {"write parent's memory", [] { return openPath(("/proc/" + std::to_string(parentPid) + "/mem").c_str(), O_RDWR); }, K, K, R, R},
    {"openat2", [] { return syscall(437, AT_FDCWD, "/etc/passwd", page, 24); },                           K, K, K, R},
    {"open_by_handle_at", [] { return syscall(SYS_open_by_handle_at, AT_FDCWD, page, O_RDONLY); },        K, K, K, R},
    {"unlink /etc/passwd", [] { return syscall(SYS_unlinkat, AT_FDCWD, "/etc/passwd", 0); },              K, K, R, R},
    {"mkdir", [] { return syscall(SYS_mkdirat, AT_FDCWD, "/tmp/sandbox-probe", 0700); },                  K, K, K, R},
    {"rename", [] { return syscall(SYS_renameat2, AT_FDCWD, "/tmp/a", AT_FDCWD, "/tmp/b", 0); },          K, K, K, R},
    {"symlink", [] { return syscall(SYS_symlinkat, "/etc", AT_FDCWD, "/tmp/sandbox-probe"); },            K, K, K, R},
    {"chroot", [] { return syscall(SYS_chroot, "/tmp"); },                                                K, K, R, R},
    {"readlink /proc/self/exe", [] { return syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", page, 100); }, K, K, A, A},
    {"dup", [] { return syscall(SYS_dup, fileFd); },                                                      K, K, A, R},
    {"splice", [] { return syscall(SYS_splice, streamFd, nullptr, streamFd, nullptr, 1, 0); },            K, K, K, R},
    {"vmsplice", [] { iovec v{page, 1}; return syscall(SYS_vmsplice, streamFd, &v, 1, 0); },              K, K, K, R},
    // Programs and processes
    {"execve /bin/sh", [] { return runProgram("/bin/sh"); },                                              K, K, R, K},
    {"execve /usr/bin/id", [] { return runProgram("/usr/bin/id"); },                                      K, K, R, K},
    {"execveat", [] { return syscall(SYS_execveat, fileFd, "", nullptr, nullptr, AT_EMPTY_PATH); },       K, K, K, K},
    {"fork", [] { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); },                                      K, K, A, K},
    {"vfork", [] { return syscall(SYS_vfork); },                                                          K, K, S, K},
    {"a thread", [] { return syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, page + 2048, 0, 0, 0); }, K, K, K, K},
    {"clone with a user namespace", [] { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); },   K, K, K, K},
    {"clone3", [] { return syscall(SYS_clone3, page, 64); },                                              R, R, R, R},
    {"ptrace parent", [] { return syscall(SYS_ptrace, PTRACE_ATTACH, parentPid, 0, 0); },                 K, K, K, K},
    {"ptrace me", [] { return syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0); },                            K, K, K, K},
    {"process_vm_readv", [] { iovec v{page, 1}; return syscall(SYS_process_vm_readv, parentPid, &v, 1, &v, 1, 0); }, K, K, K, K},
    {"process_vm_writev", [] { iovec v{page, 1}; return syscall(SYS_process_vm_writev, parentPid, &v, 1, &v, 1, 0); }, K, K, K, K},
    {"kill parent", [] { return syscall(SYS_kill, parentPid, SIGTERM); },                                 K, K, R, K},
    {"kill all", [] { return syscall(SYS_kill, -1, 0); },                                                 K, K, A, K},
    {"tgkill parent", [] { return syscall(SYS_tgkill, parentPid, parentPid, 0); },                        K, K, K, R},
    {"pidfd_getfd", [] { return syscall(438, streamFd, 0, 0); },                                          K, K, K, K},
    {"setpriority of all", [] { return syscall(SYS_setpriority, 0, 0, -20); },                            K, K, K, R},
    // Sockets
    {"socket tcp", [] { return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); },                           K, K, A, A},
    {"socket unix", [] { return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); },                          K, K, A, A},
    {"socket raw packets", [] { return syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0); },                    K, K, K, R},
    {"socket vsock", [] { return syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0); },                        K, K, K, R},
    {"socket kernel crypto", [] { return syscall(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0); },               K, K, K, R},
    {"socketpair", [] { return syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, page); },                 K, K, A, R},
    {"connect", [] { auto to = localhost(22); return syscall(SYS_connect, tcpFd, &to, sizeof to); },      K, K, S, S},
    {"bind", [] { auto at = localhost(0); return syscall(SYS_bind, tcpFd, &at, sizeof at); },             K, K, A, A},
    {"listen", [] { return syscall(SYS_listen, tcpFd, 1); },                                              K, K, A, R},
    {"sendto with an address", [] { auto to = localhost(22); return syscall(SYS_sendto, tcpFd, "", 0, 0, &to, sizeof to); }, K, K, S, S},
    {"sendmsg MSG_FASTOPEN", fastOpenByAddressInMemory,                                                   K, K, S, S},
    {"sendto MSG_FASTOPEN", fastOpenByAddress,                                                            K, K, S, S},
    {"MSG_FASTOPEN without an address", fastOpenWithoutAddress,                                           S, K, S, S},
    {"setsockopt SO_ATTACH_FILTER", [] { return syscall(SYS_setsockopt, streamFd, SOL_SOCKET, 26, page, 16); }, K, K, S, S},
    {"setsockopt IP_TRANSPARENT", [] { const int on = 1; return syscall(SYS_setsockopt, tcpFd, IPPROTO_IP, 19, &on, 4); }, K, K, R, R},
    {"setsockopt TCP_ULP", [] { return syscall(SYS_setsockopt, tcpFd, IPPROTO_TCP, 31, "tls", 3); },      K, K, R, R},
    {"getsockopt SO_PEERSEC", [] { return syscall(SYS_getsockopt, streamFd, SOL_SOCKET, 31, page, page + 64); }, K, K, S, S},
    {"setsockopt SO_SNDBUF", [] { const int size = 1 << 20; return syscall(SYS_setsockopt, streamFd, SOL_SOCKET, SO_SNDBUF, &size, 4); }, K, K, S, S},
    {"getpeername", [] { socklen_t size = 64; return syscall(SYS_getpeername, streamFd, page, &size); },  K, K, S, S},
    {"fcntl F_GETFL", [] { return syscall(SYS_fcntl, streamFd, F_GETFL); },                               K, K, S, S},
    {"fcntl F_SETOWN", [] { return syscall(SYS_fcntl, streamFd, F_SETOWN, parentPid); },                  K, K, K, R},
    {"fcntl O_ASYNC", [] { return syscall(SYS_fcntl, streamFd, F_SETFL, O_ASYNC); },                      K, K, S, S},
    // Memory that runs
    {"mmap writable code", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }, K, K, K, R},
    {"mmap code of a file", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileFd, 0); }, K, K, S, S},
    {"mmap a file", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fileFd, 0); },         K, K, A, A},
    {"mmap shared anonymous", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0); }, K, K, A, A},
    {"mmap at a fixed address", [] { return syscall(SYS_mmap, page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); }, K, K, A, A},
    {"mprotect code", [] { return syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC); },            K, K, K, R},
    {"mprotect growsdown", [] { return syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_GROWSDOWN); },  K, K, K, R},
    {"pkey_mprotect code", [] { return syscall(SYS_pkey_mprotect, page, 4096, PROT_READ | PROT_EXEC, -1); }, K, K, K, R},
    {"mremap to a fixed address", [] { return syscall(SYS_mremap, page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page); }, K, K, K, R},
    {"madvise MADV_DOFORK", [] { return syscall(SYS_madvise, page, 4096, MADV_DOFORK); },                 K, K, K, R},
    {"madvise MADV_DODUMP", [] { return syscall(SYS_madvise, page, 4096, MADV_DODUMP); },                 K, K, K, R},
    {"memfd_create", [] { return syscall(SYS_memfd_create, "x", 0); },                                    K, K, A, K},
    {"memfd_secret", [] { return syscall(447, 0); },                                                      K, K, K, R},
    {"shmget", [] { return syscall(SYS_shmget, 0, 4096, 01600); },                                        K, K, K, R},
    // The kernel's own surface
    {"io_uring_setup", [] { return syscall(SYS_io_uring_setup, 1, page); },                               K, K, K, K},
    {"bpf", [] { return syscall(SYS_bpf, 0, page, 16); },                                                 K, K, K, K},
    {"perf_event_open", [] { perf_event_attr a{}; return syscall(SYS_perf_event_open, &a, 0, -1, -1, 0); }, K, K, K, K},
    {"userfaultfd", [] { return syscall(SYS_userfaultfd, 0); },                                           K, K, K, K},
    {"keyctl", [] { return syscall(SYS_keyctl, 0, 0, 0, 0, 0); },                                         K, K, K, K},
    {"add_key", [] { return syscall(SYS_add_key, "user", "a", "b", 1, -3); },                             K, K, K, K},
    {"init_module", [] { return syscall(SYS_init_module, page, 1, ""); },                                 K, K, K, R},
    {"kexec_load", [] { return syscall(SYS_kexec_load, 0, 0, nullptr, 0); },                              K, K, K, R},
    {"ioctl TIOCSTI", [] { return syscall(SYS_ioctl, 0, TIOCSTI, "x"); },                                 K, K, K, R},
    {"personality", [] { return syscall(SYS_personality, 0x400000); },                                    K, K, K, R},
    {"modify_ldt", [] { return syscall(SYS_modify_ldt, 0, page, 1); },                                    K, K, K, R},
    {"swapon", [] { return syscall(SYS_swapon, "/tmp/x", 0); },                                           K, K, K, R},
    {"unshare user", [] { return syscall(SYS_unshare, CLONE_NEWUSER); },                                  K, K, S, K},
    {"unshare pid", [] { return syscall(SYS_unshare, CLONE_NEWPID); },                                    K, K, K, K},
    {"setns", [] { return syscall(SYS_setns, fileFd, 0); },                                               K, K, K, K},
    {"mount", [] { return syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, ""); },                          K, K, R, K},
    {"umount2", [] { return syscall(SYS_umount2, "/tmp", MNT_DETACH); },                                  K, K, K, R},
    // Coming back to power
    {"setuid 0", [] { return syscall(SYS_setuid, 0); },                                                   K, K, K, K},
    {"setresuid 0", [] { return syscall(SYS_setresuid, 0, 0, 0); },                                       K, K, R, R},
    {"setgroups", [] { return syscall(SYS_setgroups, 0, nullptr); },                                      K, K, R, R},
    {"capset", [] { return syscall(SYS_capset, page, page); },                                            K, K, S, R},
    {"prctl dumpable", [] { return syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); },                    K, K, A, R},
    {"prctl PTRACER", [] { return syscall(SYS_prctl, PR_SET_PTRACER, -1, 0, 0, 0); },                     K, K, K, R},
    {"prctl ambient", [] { return syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0); },  K, K, R, R},
    {"raise a limit", [] { const long v[2] = {-1, -1}; return syscall(SYS_prlimit64, 0, 4, v, nullptr); }, K, K, R, R},
    {"limits of the parent", [] { return syscall(SYS_prlimit64, parentPid, 4, nullptr, page); },          K, K, K, R},
    {"seccomp", [] { return syscall(SYS_seccomp, 0, 0, nullptr); },                                       K, K, S, R},
    {"rt_sigaction SIGSEGV", [] { return syscall(SYS_rt_sigaction, SIGSEGV, nullptr, page, 8); },         K, K, A, A},
    // What the kernel would cut off, the filter must see
    {"high bits: mmap", [] { return syscall(SYS_mmap, 0, 4096, PROT_READ | HIGH, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }, K, K, K, R},
    {"high bits: mprotect", [] { return syscall(SYS_mprotect, page, 4096, PROT_READ | HIGH); },           K, K, K, R},
    {"high bits: madvise", [] { return syscall(SYS_madvise, page, 4096, MADV_DONTNEED | HIGH); },         K, K, K, R},
    {"high bits: futex", [] { return syscall(SYS_futex, page, FUTEX_WAKE | HIGH, 1, 0, 0, 0); },          K, K, K, R},
    {"futex requeue", [] { return syscall(SYS_futex, page, FUTEX_CMP_REQUEUE, 1, 0, page, 0); },          K, K, K, R},
    {"high bits: accept4", [] { return syscall(SYS_accept4, streamFd, nullptr, nullptr, HIGH); },         K, K, K, K},
    {"high bits: getsockopt", [] { return syscall(SYS_getsockopt, streamFd, SOL_SOCKET | HIGH, SO_PEERCRED, page, page); }, K, K, S, S},
    {"high bits: socket", [] { return syscall(SYS_socket, AF_INET | HIGH, SOCK_STREAM, 0); },             K, K, K, R},
    {"high bits: unshare", [] { return syscall(SYS_unshare, CLONE_NEWNET | HIGH); },                      K, K, K, K},
    {"high bits: tgkill", [] { return syscall(SYS_tgkill, getpid() | HIGH, getpid(), 0); },               K, K, K, R},
    {"foreign ABI: int 0x80", foreignAbi,                                                                 K, K, K, K},
    {"foreign ABI: x32", [] { return syscall(X32 + SYS_getpid); },                                        K, K, K, K},
    {"a call that doesn't exist", [] { return syscall(99999); },                                          K, K, K, R},
};
// clang-format on

}  // namespace

std::span<const Attack> attacks() { return ATTACKS; }

void prepareAttacks() {
  page = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  fileFd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  tcpFd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int pair[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0) streamFd = pair[0];
  parentPid = getppid();
  listenFd = listenOnLoopback();
  sockaddr_in at{};
  socklen_t length = sizeof at;
  if (getsockname(listenOnLoopback(), reinterpret_cast<sockaddr*>(&at), &length) == 0) service = ntohs(at.sin_port);
}

}  // namespace sallyport::probe
