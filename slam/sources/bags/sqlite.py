"""SQLite files of ROS 2 bags (`.db3`), also cut off."""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from slam.errors import SourceError
from slam.reading import open_file, reason
from slam.sources.bags.storage import RawMessage, Topic

MAGIC = b"SQLite format 3\0"


class SqliteBag:
    """A `.db3` file."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError if it is none."""
        self.path = path
        self.damage = ""
        try:
            with open_file(path) as file:
                magic = file.read(len(MAGIC))
        except OSError as error:
            raise SourceError(f"cannot read {path}: {reason(error)}") from error
        if not magic:
            raise SourceError(f"{path} is empty")
        if magic != MAGIC:
            raise SourceError(f"{path} is no SQLite file, as a ROS 2 bag of this name would be")
        self._topics()  # raises

    def topics(self) -> list[Topic]:
        """With the number of messages that can be read."""
        self.damage = ""
        counts = dict.fromkeys(self._topics(), 0)
        with self._database() as database:
            try:
                for number, count in database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
                    counts[number] = count
            except sqlite3.DatabaseError:
                counts = self._counted(database)
        return [Topic(*topic, counts.get(number, 0)) for number, topic in self._topics().items()]

    def messages(self, names: Collection[str]) -> Iterator[RawMessage]:
        """In the order in which they were written."""
        self.damage = ""
        wanted = {number: topic[0] for number, topic in self._topics().items() if topic[0] in names}
        places = ",".join("?" * len(wanted))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({places}) ORDER BY id"
        with self._database() as database:
            try:
                for number, time_ns, data in database.execute(query, tuple(wanted)):
                    yield RawMessage(wanted[number], time_ns, data)
            except sqlite3.DatabaseError as error:
                self.damage = f"it is cut off or damaged ({error})"

    def _counted(self, database: sqlite3.Connection) -> dict[int, int]:
        """Messages up to the damage, which is noted."""
        counts: dict[int, int] = {}
        try:
            for (number,) in database.execute("SELECT topic_id FROM messages ORDER BY id"):
                counts[number] = counts.get(number, 0) + 1
        except sqlite3.DatabaseError as error:
            self.damage = f"it is cut off or damaged ({error})"
        return counts

    def _topics(self) -> dict[int, tuple[str, str, str]]:
        """Name, type and encoding by number."""
        with self._database() as database:
            try:
                rows = database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
            except sqlite3.DatabaseError as error:
                raise SourceError(f"{self.path} is no ROS 2 bag that can be read: {error}") from error
        return {number: (name, type_name, encoding) for number, name, type_name, encoding in rows}

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Read only; what a recorder that crashed left in its log (-wal) is read too."""
        has_log = self.path.with_name(f"{self.path.name}-wal").exists()
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro{'' if has_log else '&immutable=1'}"
        try:
            database = sqlite3.connect(uri, uri=True)
        except sqlite3.DatabaseError as error:
            raise SourceError(f"cannot read {self.path}: {error}") from error
        try:
            database.execute("PRAGMA writable_schema = ON")  # else SQLite refuses a file that is cut off
            yield database
        finally:
            database.close()
