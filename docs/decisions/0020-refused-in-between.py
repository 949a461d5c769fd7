#!/usr/bin/env python3
"""Connects to an address that nftables translates to servers which always
listen, first as it is, then while the rule is written again and again, for so
many seconds each, and tells what failed. Needs root, nft and
python3, and a network namespace of its own: unshare -n."""

import collections
import multiprocessing
import socket
import struct
import subprocess
import sys
import time

SERVER, PORTS, SERVICE = "10.96.0.9", (8081, 8082, 8083), "10.99.0.1"


def rule(n):
    return "numgen random mod %d vmap { %s }" % (n, ", ".join("%d : goto endpoint%d" % (i, i) for i in range(n)))


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def serve(port):
    s = socket.socket()
    s.bind((SERVER, port))
    s.listen(1024)
    while True:
        s.accept()[0].close()


def connect(end, out):
    tally = collections.Counter()
    while time.time() < end:
        s = socket.socket()
        s.settimeout(5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            s.connect((SERVICE, 80))
        except OSError as e:
            tally[str(e)] += 1
        tally["connections"] += 1
        s.close()
    out.put(tally)


def run(seconds, update):
    end, out = time.time() + seconds, multiprocessing.Queue()
    for _ in range(4):
        multiprocessing.Process(target=connect, args=(end, out)).start()
    updates = 0
    while update and time.time() < end:
        nft("flush chain ip t service\nadd rule ip t service %s\n" % rule(2 + updates % 2))
        updates += 1
    print(updates, "updates:", dict(sum((out.get() for _ in range(4)), collections.Counter())))


def main():
    for args in (["link", "set", "lo", "up"], ["addr", "add", SERVER + "/32", "dev", "lo"], ["route", "add", SERVICE + "/32", "dev", "lo"]):
        subprocess.run(["ip", *args], check=True)
    nft("""table ip t {
    map services { type ipv4_addr . inet_service : verdict; }
    %s
    chain service { %s; }
    chain translate { type nat hook output priority -100; ip daddr . tcp dport vmap @services; }
    chain guard { type filter hook output priority 0; ip daddr %s reject; }
}
add element ip t services { %s . 80 : goto service }
""" % ("\n".join("chain endpoint%d { meta l4proto tcp dnat to %s:%d; }" % (i, SERVER, p) for i, p in enumerate(PORTS)), rule(2), SERVICE, SERVICE))
    servers = [multiprocessing.Process(target=serve, args=(p,), daemon=True) for p in PORTS]
    for s in servers:
        s.start()
    time.sleep(0.5)
    run(float(sys.argv[1]), False)
    run(float(sys.argv[1]), True)


main()
