"""What the loop of the system runs, as `slam.build` puts it together."""

from dataclasses import dataclass

from slam.backend.backend import Backend
from slam.frontend.keyframing import Keyframing
from slam.frontend.localiser import Localiser
from slam.frontend.preparation import Preparation
from slam.frontend.start import Start
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher
from slam.stereo.prior import Prior


@dataclass(frozen=True)
class Parts:
    """Each owns its state; the backend is run on another thread, by `BackendClient`."""

    preparation: Preparation
    start: Start
    localiser: Localiser
    keyframing: Keyframing
    store: KeyframeStore
    backend: Backend
    aligning: Matcher  # of views that are nearly in their places, at the end of a run
    prior: Prior | None = None
