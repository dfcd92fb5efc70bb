"""How a Ray cluster is divided between predicting and decoding."""

import pytest

# Not "ray": see test_ray.py.
pytest.importorskip("tagger.inference.ray.cluster", reason="needs ray, from the extra `dev`")

from tagger.errors import ClusterError, SettingsError
from tagger.inference.engine import InferenceRequest
from tagger.inference.ray.cluster import Node, RayCluster, ResourcePlan, plan_resources
from tagger.inference.ray.workers import make_portable
from tagger.models import find_model
from tagger.settings import Settings

pytestmark = pytest.mark.extra


@pytest.mark.parametrize(
    ("nodes", "options", "plan"),
    [
        ([Node(64, 0)] * 2, {}, ResourcePlan(32, 3, 0, decoding_cpus=32)),
        ([Node(4, 0)], {}, ResourcePlan(1, 3, 0, decoding_cpus=1)),
        ([Node(2, 0)] * 3, {}, ResourcePlan(3, 1, 0, decoding_cpus=3)),
        ([Node(1, 0)] * 3, {}, ResourcePlan(1, 1, 0, decoding_cpus=2)),
        ([Node(16, 2), Node(32, 0)], {}, ResourcePlan(2, 1, 1, decoding_cpus=46)),
        ([Node(16, 2)], {"ray_predictor_gpus": 0.5}, ResourcePlan(4, 1, 0.5, decoding_cpus=12)),
        ([Node(16, 2)], {"ray_predictor_gpus": 0.4}, ResourcePlan(4, 1, 0.4, decoding_cpus=12)),
        ([Node(8, 8)], {}, ResourcePlan(7, 1, 1, decoding_cpus=1)),
        ([Node(1, 2), Node(8, 0)], {}, ResourcePlan(1, 1, 1, decoding_cpus=8)),
        ([Node(8, 4)], {"ray_predictor_cpus": 4}, ResourcePlan(1, 4, 1, decoding_cpus=4)),
        ([Node(16, 2)], {"device": "cpu"}, ResourcePlan(4, 3, 0, decoding_cpus=4)),
        (
            [Node(16, 2)],
            {"ray_predictors": 1, "ray_predictor_cpus": 4},
            ResourcePlan(1, 4, 1, decoding_cpus=12),
        ),
    ],
)
def test_a_cluster_is_divided(
    nodes: list[Node], options: dict[str, object], plan: ResourcePlan
) -> None:
    assert plan_resources(nodes, Settings(**options)) == plan  # type: ignore[arg-type]


def test_a_core_must_be_left_to_decode() -> None:
    with pytest.raises(ClusterError, match="leave none of the cluster's"):
        plan_resources([Node(1, 0)], Settings())
    with pytest.raises(ClusterError, match="no machine of the cluster has room"):
        plan_resources([], Settings())


def test_a_gpu_of_this_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="cuda:N is for one machine"):
        RayCluster(Settings(device="cuda:1"))


def test_without_a_gpu_of_its_own_a_predictor_runs_on_the_cpu() -> None:
    source = find_model(Settings())

    def choose_device(device: str, gpus: float | None) -> str:
        settings = Settings(device=device, ray_predictor_gpus=gpus)
        plan = plan_resources([Node(16, 2)], settings)
        return make_portable(InferenceRequest(source, settings), plan).settings.device

    assert choose_device("auto", 0) == "cpu"
    assert choose_device("auto", None) == "auto"
    assert choose_device("auto", 0.5) == "auto"
    assert choose_device("mps", 0) == "mps"
    assert choose_device("cuda", None) == "cuda"
    with pytest.raises(SettingsError, match="--ray-predictor-gpus 0 gives none"):
        RayCluster(Settings(device="cuda", ray_predictor_gpus=0))


@pytest.mark.parametrize("options", [{"ray_predictor_cpus": 9}, {"ray_predictor_gpus": 0.5}])
def test_a_predictor_that_no_machine_has_room_for_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ClusterError, match="no machine of the cluster has room"):
        plan_resources([Node(8, 0)] * 3, Settings(**options))  # type: ignore[arg-type]
