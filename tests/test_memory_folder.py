from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from app.memory_folder import memory_folder

HOLD = """
import sys, time
from pathlib import Path
from app.memory_folder import memory_folder

with memory_folder(Path(sys.argv[1])) as folder:
    (folder / "counted.db").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_it_is_there_for_the_block_and_another_is_another(tmp_path: Path) -> None:
    with memory_folder(tmp_path) as one, memory_folder(tmp_path) as other:
        assert one != other
        assert one.parent == other.parent == tmp_path
        assert one.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with memory_folder(tmp_path):
            assert (held / "counted.db").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert held.exists()
    with memory_folder(tmp_path):
        assert not held.exists()


def test_folders_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "trichord-notes").mkdir()
    (tmp_path / "lock").touch()
    with memory_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "trichord-notes"]


def test_without_shared_memory_it_is_where_temporary_files_are(tmp_path: Path) -> None:
    with memory_folder(tmp_path / "nothing") as folder:
        assert folder.is_dir()
