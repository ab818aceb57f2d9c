"""Where a piece may stand in a scene, and what it looks like: one state for all pieces of a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from defocus_sim.datasets.synthetic.rendering.raycast import Finish, Shell, Solid, Vec3

Built = list[Solid]
_ATTEMPTS = 8


@dataclass(kw_only=True)
class Workshop:
    """Builds pieces and keeps those that fit: nearer than nothing allowed, within the walls, not through each other.

    `rotation` (3, 3) world to camera; `floor_m` the floor's y; `near_m` the least z-depth; `size_m` sizes allowed.
    """

    rng: np.random.Generator
    rotation: Vec3
    floor_m: float
    near_m: float
    size_m: tuple[float, float]
    solids: list[Solid] = field(default_factory=list)
    _feet: list[tuple[float, float, float]] = field(default_factory=list)
    _shell: Shell | None = None

    def enclose(self, shell: Shell) -> None:
        """Keep every later piece inside `shell`."""
        self._shell = shell

    @property
    def shell(self) -> Shell:
        """The enclosure."""
        if self._shell is None:
            raise RuntimeError("enclose() comes before the first piece")
        return self._shell

    def finish(self, textures: tuple[int, ...] = (0, 2, 2, 3, 4)) -> Finish:
        """A random look from one of the numbered textures."""
        rng = self.rng
        return Finish(
            texture=int(rng.choice(textures)),
            texel_px=float(rng.uniform(0.7, 1.3)),
            angle=float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.05)),
            offset=(float(rng.random()), float(rng.random())),
            tint=tuple((rng.uniform(0.55, 1.25) * rng.uniform(0.85, 1.15, 3)).tolist()),
            swap=tuple(rng.permutation(3).tolist()) if rng.random() < 0.4 else (0, 1, 2),
        )

    def add(self, maker: Callable[[Workshop, Vec3, float, float], Built], depth_m: float, tangent: float) -> None:
        """Try a few places at camera depth `depth_m` for one piece; none may fit, then nothing is added."""
        right, down, ahead = self.rotation
        for _ in range(_ATTEMPTS):
            u = float(self.rng.uniform(-0.95, 0.95)) * tangent
            v = (self.floor_m / depth_m - ahead[1] - u * right[1]) / down[1]
            foot = depth_m * (u * right + v * down + ahead)
            size = float(np.clip(depth_m * self.rng.uniform(0.12, 0.34), *self.size_m))
            yaw = float(self.rng.uniform(-np.pi, np.pi))
            built = maker(self, foot, size, yaw)
            if built and self._fits(built):
                self.solids += built
                return

    def _fits(self, built: Built) -> bool:
        points = np.concatenate([solid.corners() for solid in built])
        if (points @ self.rotation[2]).min() < self.near_m * 1.03:
            return False
        local = (points - self.shell.centre) @ self.shell.axes.T
        if (np.abs(local) > self.shell.half + 1e-6).any():
            return False
        middle = points.mean(axis=0)
        radius = 0.7 * float(np.hypot(*(points - middle)[:, [0, 2]].T).max())
        top, bottom = float(points[:, 1].min()), float(points[:, 1].max())
        # Things that hang may be above things that stand.
        standing = bottom > self.floor_m - 0.5 * (bottom - top)
        if standing:
            if any(np.hypot(middle[0] - x, middle[2] - z) < radius + r for x, z, r in self._feet):
                return False
            self._feet.append((float(middle[0]), float(middle[2]), radius))
        return True
