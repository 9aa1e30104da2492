"""A network lab in namespaces of this machine: ``python -m benchmarks.lab`` (``make lab``), see docs/lab.md.

namespaces   network namespaces with the name of who made them, and the sweep of what a dead lab left
kernel       what this kernel and its tools can do
nat          routers: four kinds of NAT, UDP blocked, a firewall for IPv6
topology     the public network, relay hosts, homes, devices with one or more uplinks
nat_check    measures what the NATs do, with plain UDP
cable        a link with delay, jitter, rate and bursts of loss, where the kernel has no netem
cable_check  measures what the cable does
agent        a device's process: an endpoint that obeys JSON lines; agents is the lab's end of it
scenarios    what befalls two devices, and what is expected then
report       rows of a table, on the screen and as plain text
"""
