// What the agent needs of Linux that Swift cannot reach: code that runs before Swift does, between clone and exec, or
// in a signal handler; variadic calls and macros.
#pragma once

// No header of the system's but this one: what they declare depends on feature macros, and the compiler refuses a program
// that sees a declaration in two ways.
#include <stdint.h>

// What a process is started with; see martlet_agent_spawn.
struct martlet_agent_spawn {
    uint64_t namespaces;     // CLONE_NEW* of the child
    const char *user_map;    // with CLONE_NEWUSER: the content of the child's uid_map, and of its gid_map; the child is root there
    const char *group_map;
    int pid_namespace;       // a pidfd: the child starts in that process's pid namespace; -1: in the caller's
    int own_pid_namespace;   // descriptor of the caller's own pid namespace; needed with pid_namespace only
    int cgroup;              // descriptor of the cgroup directory that the child starts in; -1: the caller's
    int executable;          // what it executes
    char *const *argv;       // NULL-terminated
    char *const *envp;       // NULL-terminated
    const int *descriptors;  // the child's descriptor i is a copy of descriptors[i]
    int descriptor_count;    // at most 16
};

// Starts a process with exactly the given descriptors, default signal dispositions and an empty signal mask.
// Answers 0 and sets *pid and *pidfd, or the errno of the step that failed and that step's name in *step. A failure to
// execute shows as the child's exit status 127.
int martlet_agent_spawn(const struct martlet_agent_spawn *options, int32_t *pid, int *pidfd, const char **step);

// Goes on as a new process in the pid namespace that the caller's children start in (setns): a child of the caller's parent,
// with copies of all that the caller has. Answers 0 in the new process; in the caller its pid, with a pidfd in *pidfd, or -1.
// For a process with one thread.
int martlet_agent_go_on_in_new_process(int *pidfd);

// Makes the console standard input, output and error where it was not there when the first process began, as with a kernel
// whose console is a module.
void martlet_agent_find_console(void);

// Writes what ended the agent to standard error and to the kernel's log when the program traps, then lets it die of it.
void martlet_agent_install_crash_report(void);

int martlet_agent_setns(int descriptor, int namespaces);
// Root and root's group in the calling thread's user namespace, in no other group.
int martlet_agent_become_root(void);
int martlet_agent_unshare(int namespaces);
int martlet_agent_pivot_root(const char *new_root, const char *put_old);
int martlet_agent_finit_module(int descriptor, const char *parameters, int flags);
// keyctl(KEYCTL_JOIN_SESSION_KEYRING): a new, empty session keyring.
int martlet_agent_join_session_keyring(void);
// capset(2), version 3, of the calling thread.
int martlet_agent_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable);
// The kernel's setresuid and setresgid, of the calling thread alone.
int martlet_agent_setresuid(uint32_t user);
int martlet_agent_setresgid(uint32_t group);
int martlet_agent_mknod(int directory, const char *name, uint32_t mode, unsigned major, unsigned minor);
uint64_t martlet_agent_device_number(unsigned major, unsigned minor);
unsigned martlet_agent_device_major(uint64_t number);
unsigned martlet_agent_device_minor(uint64_t number);
// The other end of a pseudo-terminal's master (TIOCGPTPEER).
int martlet_agent_pty_peer(int master, int flags);
int martlet_agent_pty_unlock(int master);
int martlet_agent_set_window(int terminal, unsigned short rows, unsigned short columns);
int martlet_agent_set_controlling_terminal(int terminal);
// RNDADDENTROPY, crediting 8 bits a byte, then RNDRESEEDCRNG.
int martlet_agent_reseed(int random, const void *bytes, int length);
// Brings a network interface up (SIOCSIFFLAGS).
int martlet_agent_interface_up(const char *name);
// Bytes of memory of the machine.
uint64_t martlet_agent_memory_size(void);
// Powers the machine off; where that is impossible restarts it, which a hypervisor takes for the end. May return.
void martlet_agent_power_off(void);
// Writes a byte to an x86 I/O port. Answers 0, or an errno; ENOSYS on other processors.
int martlet_agent_write_port(uint16_t port, uint8_t value);
// A listening SOCK_STREAM vsock socket on `port`, any cid; close-on-exec.
int martlet_agent_vsock_listen(unsigned port);
// A listening Unix socket, close-on-exec.
int martlet_agent_unix_listen(const char *path);
// sched_setattr(2) of the calling thread; times in nanoseconds.
int martlet_agent_set_scheduler(uint32_t policy, uint64_t flags, int32_t nice, uint32_t priority, uint64_t runtime, uint64_t deadline, uint64_t period);
// ioprio_set(2) of the calling thread: class and level in one.
int martlet_agent_set_io_priority(int priority);
int martlet_agent_set_personality(unsigned long personality);
// sched_setaffinity(2) of the calling thread, by a mask of `count` words.
int martlet_agent_set_affinity(const uint64_t *mask, unsigned count);
// Loads a program of BPF_PROG_TYPE_CGROUP_DEVICE; answers its descriptor, or -1 with the verifier's output in `log`.
int martlet_agent_load_device_program(const uint64_t *instructions, unsigned count, char *log, unsigned log_size);
// Lets it decide for the cgroup, together with those of the cgroups above (BPF_F_ALLOW_MULTI).
int martlet_agent_attach_device_program(int cgroup, int program);
