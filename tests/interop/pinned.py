"""Decodes pictures of an rtsps URL with GStreamer, if the camera shows the certificate of a file.

Usage: pinned.py URL USER PASSWORD CERTIFICATE PICTURES
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gio, GLib, Gst  # noqa: E402

url, user, password, certificate, pictures = sys.argv[1:]
Gst.init(None)
pipeline = Gst.parse_launch(
    "rtspsrc name=source latency=0 ! rtph264depay ! h264parse ! avdec_h264"
    " ! fakesink name=sink signal-handoffs=true"
)
source = pipeline.get_by_name("source")
source.set_property("location", url)
source.set_property("user-id", user)
source.set_property("user-pw", password)
source.set_property("tls-database", Gio.TlsFileDatabase.new(certificate))
# Whose certificate it is, not which address it is at.
flags = Gio.TlsCertificateFlags
source.set_property("tls-validation-flags", flags.VALIDATE_ALL & ~flags.BAD_IDENTITY)

loop = GLib.MainLoop()
seen = 0
failure = None


def count(_sink, _buffer, _pad):
    global seen
    seen += 1
    if seen == int(pictures):
        GLib.idle_add(loop.quit)


def fail(_bus, message):
    global failure
    failure = message.parse_error()
    loop.quit()


pipeline.get_by_name("sink").connect("handoff", count)
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message::error", fail)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
if failure is not None:
    sys.exit(f"{failure.err.message} {failure.debug}" if hasattr(failure, "err") else str(failure))
