"""The ways out: what each tries, and the only answers that are no escape."""

from dataclasses import dataclass

# What the proxy may do with a destination that no rule lists: refuse, or close.
PROXIED = frozenset({"b''", "b'HTTP/1.1 403'", "b'HTTP/1.0 403'", "ECONNRESET", "EPIPE"})
EPERM = frozenset({"EPERM"})
NO_SOCKET = frozenset({"EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"})


@dataclass(frozen=True, slots=True)
class Way:
    """One way: code that prints one outcome, and the outcomes that hold."""

    code: str
    held: frozenset[str]


def _udp(family: int, address: str, port: int = 443) -> str:
    sock = f"socket.socket({family}, 2)"
    return f"attempt(lambda: {sock}.sendto(b'out', ({address}, {port})))"


def _option(level: int, name: int, value: str) -> str:
    return f"s = socket.socket(); attempt(lambda: s.setsockopt({level}, {name}, {value}))"


_IN_OWN_NAMESPACE = """
pid = os.fork()
if pid == 0:
    if libc.unshare(0x10000000 | 0x40000000):
        print('EPERM'); os._exit(0)
    {code}
    sys.stdout.flush(); os._exit(0)
os.waitpid(pid, 0)
"""

WAYS = {
    # TCP: all of it arrives at the proxy, however it is dialled and by whom
    "tcp over IPv4": Way("attempt(lambda: tcp(2, F4))", PROXIED),
    "tcp over IPv6": Way("attempt(lambda: tcp(10, F6))", PROXIED),
    "tcp to a mapped address": Way("attempt(lambda: tcp(10, '::ffff:' + F4))", PROXIED),
    "fast open by sendto": Way(
        "s=socket.socket()\n"
        "attempt(lambda: (s.sendto(b'GET /', 0x20000000, (F4, 8080)), s.shutdown(1),"
        " s.recv(64)[:12])[2])",
        PROXIED,
    ),
    "fast open by option": Way(
        "attempt(lambda: tcp(2, F4, before=lambda s: s.setsockopt(6, 30, 1)))", PROXIED
    ),
    "fast open without cookie, SYN held back": Way(
        "attempt(lambda: tcp(2, F4, before=lambda s: (s.setsockopt(6, 34, 1),"
        " s.setsockopt(6, 30, 1))))",
        PROXIED,
    ),
    "bound to a source address first": Way(
        "attempt(lambda: tcp(2, F4, before=lambda s: s.bind((N4, 0))))", PROXIED | {"EPERM"}
    ),
    "disconnected and connected anew": Way(
        """
def again():
    l = socket.create_server(('127.0.0.1', 0)); s = socket.socket(); s.settimeout(60)
    s.connect(l.getsockname()); l.accept()
    libc.connect(s.fileno(), struct.pack('=H14x', 0), 16)
    s.connect((F4, 8080)); s.sendall(b'GET /'); s.shutdown(1); return s.recv(64)[:12]
attempt(again)""",
        PROXIED | {"EINVAL", "ENOTCONN"},
    ),
    "from a thread": Way(
        "t=threading.Thread(target=attempt, args=(lambda: tcp(2, F4),)); t.start(); t.join()",
        PROXIED,
    ),
    "after fork, the parent gone": Way(
        """
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.dup2(writer, 1); attempt(lambda: tcp(2, F4)); sys.stdout.flush()
    os._exit(0)
os.close(writer); os.wait(); print(os.read(reader, 99).decode())""",
        PROXIED,
    ),
    "connected by a child, used by its parent": Way(
        """
s = socket.socket(); s.settimeout(60)
if os.fork() == 0:
    s.connect((F4, 8080)); os._exit(0)
os.wait(); attempt(lambda: (s.send(b'GET /'), s.shutdown(1), s.recv(64)[:12])[2])""",
        PROXIED,
    ),
    "by exec of another program": Way(
        'code=\'import socket;s=socket.create_connection((%r,8080),60);s.send(b"GET /");'
        "s.shutdown(1);print(s.recv(64)[:12])' % F4\n"
        "r=subprocess.run([sys.executable,'-I','-S','-c',code],capture_output=True,text=True)\n"
        "print(r.stdout.strip() or r.stderr.strip().split('\\n')[-1].split(':')[0])",
        PROXIED | {"ConnectionResetError", "BrokenPipeError"},
    ),
    # everything else: no packet at all
    "mptcp": Way("attempt(lambda: socket.socket(2, 1, 262))", NO_SOCKET),
    "sctp": Way("attempt(lambda: socket.socket(2, 1, 132))", NO_SOCKET),
    "dccp": Way("attempt(lambda: socket.socket(2, 6, 33))", NO_SOCKET),
    "smc": Way("attempt(lambda: socket.socket(43, 1, 0))", NO_SOCKET),
    "udp-lite": Way("attempt(lambda: socket.socket(2, 2, 136))", NO_SOCKET),
    "raw icmp": Way("attempt(lambda: socket.socket(2, 3, 1))", NO_SOCKET),
    "raw with own headers": Way("attempt(lambda: socket.socket(2, 3, 255))", NO_SOCKET),
    "raw icmp6": Way("attempt(lambda: socket.socket(10, 3, 58))", NO_SOCKET),
    "raw in a user namespace of its own": Way(
        _IN_OWN_NAMESPACE.format(code="attempt(lambda: socket.socket(2, 3, 1))"), NO_SOCKET
    ),
    "ping socket": Way("attempt(lambda: socket.socket(2, 2, 1))", NO_SOCKET | {"EACCES"}),
    "packet socket": Way("attempt(lambda: socket.socket(17, 3, 768))", NO_SOCKET),
    "packet socket in a namespace of its own": Way(
        _IN_OWN_NAMESPACE.format(code="attempt(lambda: socket.socket(17, 3, 768))"), NO_SOCKET
    ),
    "xdp": Way("attempt(lambda: socket.socket(44, 3, 0))", NO_SOCKET),
    "vsock": Way("attempt(lambda: socket.socket(40, 1, 0))", NO_SOCKET),
    "rxrpc": Way("attempt(lambda: socket.socket(33, 2, 2))", NO_SOCKET),
    "tipc": Way("attempt(lambda: socket.socket(30, 1, 0))", NO_SOCKET),
    "io_uring": Way(
        "attempt(lambda: system(425, 8, ctypes.addressof((ctypes.c_char*120)())))", EPERM
    ),
    "a key that a program of the host looks up": Way(
        "attempt(lambda: system(249, b'dns_resolver', b'leaky.test', b'', -1))", EPERM
    ),
    "a pair of tipc": Way("attempt(lambda: socket.socketpair(30, 5))", NO_SOCKET),
    "bpf": Way(
        "attempt(lambda: system(321, 5, ctypes.addressof((ctypes.c_char*120)()), 120))",
        EPERM | {"E2BIG", "EINVAL"},
    ),
    "quic": Way(
        "attempt(lambda: socket.socket(2, 2).connect((F4, 443)))", frozenset({"ECONNREFUSED"})
    ),
    "quic over IPv6": Way(
        "attempt(lambda: socket.socket(10, 2).connect((F6, 443)))", frozenset({"ECONNREFUSED"})
    ),
    "udp": Way(_udp(2, "F4"), EPERM),
    "udp over IPv6": Way(_udp(10, "F6"), EPERM),
    "udp to a mapped address": Way(_udp(10, "'::ffff:' + F4"), EPERM),
    "udp with packet information": Way(
        "s=socket.socket(2,2);info=struct.pack('=I4s4s',0,socket.inet_aton(N4),bytes(4))\n"
        "attempt(lambda: s.sendmsg([b'out'],[(0,8,info)],0,(F4,443)))",
        EPERM,
    ),
    "udp to AF_UNSPEC": Way(
        "s=socket.socket(2,2)\n"
        "to=struct.pack('!H4s8x',443,socket.inet_aton(F4))\n"
        "r=libc.sendto(s.fileno(),b'out',3,0,struct.pack('=H',0)+to,16)\n"
        "print(errno.errorcode[ctypes.get_errno()] if r < 0 else r)",
        EPERM,
    ),
    "udp to the resolver's port, then elsewhere": Way(
        "s=socket.socket(2,2); s.connect((F4,53)); attempt(lambda: s.sendto(b'out',(F4,443)))",
        EPERM,
    ),
    "multicast": Way(_udp(2, "'224.0.0.251'", 5353), EPERM),
    "multicast over IPv6": Way(_udp(10, "'ff02::fb'", 5353), EPERM | {"ENETUNREACH"}),
    "broadcast": Way(
        "s=socket.socket(2,2);s.setsockopt(1,6,1)\n"
        "attempt(lambda: s.sendto(b'out',('255.255.255.255',9)))",
        EPERM,
    ),
    # options that lead around the redirect
    "SO_MARK": Way(_option(1, 36, "7"), EPERM),
    "SO_BINDTODEVICE": Way(_option(1, 25, "b'lo'"), EPERM),
    "SO_BINDTOIFINDEX": Way(_option(1, 62, "1"), EPERM),
    "IP_TRANSPARENT": Way(_option(0, 19, "1"), EPERM),
    "IP_FREEBIND": Way(_option(0, 15, "1"), EPERM),
    "IPV6_TRANSPARENT": Way(
        "s = socket.socket(10); attempt(lambda: s.setsockopt(41, 75, 1))", EPERM
    ),
    # namespaces and cgroups
    "a network namespace of its own": Way(
        _IN_OWN_NAMESPACE.format(code="attempt(lambda: tcp(2, F4))"),
        frozenset({"ENETUNREACH", "EPERM"}),
    ),
    "the proxy's port": Way("attempt(lambda: tcp(2, '127.0.0.1', PROXY))", EPERM),
    "the resolver's port": Way("attempt(lambda: tcp(2, '127.0.0.1', PROXY + 1))", EPERM),
    "the proxy's port on another address": Way("attempt(lambda: tcp(2, N4, PROXY))", PROXIED),
    "to take the proxy's port": Way(
        "attempt(lambda: socket.socket().bind(('127.0.0.1', PROXY)))", EPERM
    ),
    "to listen beside the proxy": Way(
        "s=socket.socket();s.setsockopt(1,15,1);attempt(lambda: s.bind(('0.0.0.0', PROXY)))", EPERM
    ),
}
