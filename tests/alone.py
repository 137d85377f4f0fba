"""Commands in a network of their own."""

import shutil
import subprocess


def alone(*command):
    """The command, in a network of its own where the system allows that: Ray listens on all interfaces."""
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if (
        shutil.which("unshare")
        and shutil.which("ip")
        and not subprocess.call([*inside, "true"], stderr=subprocess.DEVNULL)
    ):
        return [*inside, *command]
    return list(command)
