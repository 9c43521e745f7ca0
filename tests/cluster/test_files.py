"""The cluster files, checked without a cloud: schemas, Ray's own validation, versions."""

import copy
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (CLUSTER / "requirements.txt").read_text().splitlines() if line]
PINS = {canonicalize_name(r.name): r for r in map(Requirement, [x for x in LINES if x[0] != "#"])}
RAY_VERSION = next(iter(PINS["ray"].specifier)).version


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def ray_validates(config):
    """Ray's own preparation and validation of a cluster file; makes no cloud call."""
    pytest.importorskip("jsonschema")
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_the_aws_file():
    ray_validates(load("aws.yaml"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("idle_timeout",), 5),
        (("head_node_type",), "nobody"),
        (("available_node_types", "train-l4", "spot"), True),
        (("available_node_types", "train-l4", "min_workers"), "none"),
        (("available_node_types", "train-l4", "min_workers"), 100),
    ],
)
def test_ray_refuses_a_broken_aws_file(path, value):
    """The check can fail: unknown keys, a missing head, more nodes than there may be."""
    config = load("aws.yaml")
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Exception, match=r"(?s)."):
        ray_validates(config)


def test_on_aws_the_head_does_no_work_and_everything_else_begins_at_none():
    config = load("aws.yaml")
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    assert all(kind["min_workers"] == 0 and kind["max_workers"] > 0 for kind in types.values())
    assert sum(kind["max_workers"] for kind in types.values()) == config["max_workers"]
    for name, kind in types.items():
        market = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        assert (market == "spot") == (kind["labels"] != {"raygrad": "train"}), name


def test_on_aws_nothing_is_reachable_and_roles_stand_for_keys():
    config = load("aws.yaml")
    assert config["provider"]["use_internal_ips"] is True
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in config[key][-1]
    for kind in config["available_node_types"].values():
        node = kind["node_config"]
        assert set(node["IamInstanceProfile"]) == {"Name"}
        assert node["SecurityGroupIds"], "with none, Ray makes one that opens port 22 to the world"
        assert node["MetadataOptions"]["HttpTokens"] == "required"


def test_no_cluster_file_holds_a_credential():
    secret = re.compile(r"AKIA[0-9A-Z]{16}|secret_?access_?key[\"']?\s*[:=]|BEGIN .*KEY", re.I)
    for path in CLUSTER.iterdir():
        assert not secret.search(path.read_text()), path


def test_the_cluster_has_every_dependency_at_a_version_that_raygrad_accepts():
    asked = [Requirement(line) for line in PYPROJECT["dependencies"]]
    for requirement in asked:
        pin = PINS[canonicalize_name(requirement.name)]
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version), pin
        assert requirement.extras <= pin.extras, pin


@pytest.mark.parametrize("name", ["aws.yaml", "Dockerfile", "kuberay.yaml"])
def test_every_image_has_the_ray_that_is_pinned(name):
    """A Ray in the image other than the one pip installs would be replaced under its own feet."""
    text = (CLUSTER / name).read_text()
    found = set(re.findall(r"(?:rayproject/ray|REGISTRY/raygrad):(\d+\.\d+\.\d+)", text))
    found |= set(re.findall(r'rayVersion: "(.*)"', text))
    assert found == {RAY_VERSION}


def test_the_python_of_the_images_is_one_that_raygrad_accepts():
    (digits,) = set(re.findall(r"-py3(\d+)-", (CLUSTER / "Dockerfile").read_text()))
    version = f"3.{digits}"
    assert Requirement(f"x{PYPROJECT['requires-python']}").specifier.contains(version)


CPU = {"type": "string", "pattern": r"^[0-9]+m?$"}
SIZE = {"type": "string", "pattern": r"^[0-9]+(Gi|Mi)$"}


def exactly(required, **properties):
    """A schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


AMOUNTS = exactly(
    "cpu memory", cpu=CPU, memory=SIZE, **{"nvidia.com/gpu": CPU, "ephemeral-storage": SIZE}
)
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
NAME = {"type": "string", "pattern": "^[a-z][a-z0-9-]*$"}
CONTAINER = exactly(
    "name image env resources",
    name=NAME,
    image={"type": "string"},
    env={"type": "array", "items": exactly("name value", name={}, value={"type": "string"})},
    ports={"type": "array", "items": exactly("containerPort name", containerPort=COUNT, name=NAME)},
    resources=exactly("requests limits", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts={"type": "array", "items": exactly("name mountPath", name=NAME, mountPath={})},
)
POD = exactly(
    "spec",
    spec=exactly(
        "serviceAccountName nodeSelector containers",
        serviceAccountName=NAME,
        nodeSelector=TEXTS,
        tolerations={"type": "array", "items": exactly("key", key={}, operator={}, effect={})},
        terminationGracePeriodSeconds=COUNT,
        containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
        volumes={
            "type": "array",
            "items": exactly(
                "name emptyDir", name=NAME, emptyDir=exactly("", medium={}, sizeLimit=SIZE)
            ),
        },
    ),
)
WORKERS = exactly(
    "groupName replicas minReplicas maxReplicas rayStartParams template",
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=POD,
)
RAY_JOB = exactly(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=exactly("name", name=NAME),
    spec=exactly(
        "entrypoint backoffLimit activeDeadlineSeconds shutdownAfterJobFinishes rayClusterSpec",
        entrypoint={"type": "string"},
        backoffLimit=COUNT,
        activeDeadlineSeconds=COUNT,
        shutdownAfterJobFinishes={"const": True},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=exactly(
            "rayVersion authOptions enableInTreeAutoscaling headGroupSpec workerGroupSpecs",
            rayVersion={"type": "string"},
            authOptions=exactly("mode", mode={"const": "token"}),
            enableInTreeAutoscaling={"const": True},
            autoscalerOptions=exactly(
                "version",
                version={"const": "v2"},
                idleTimeoutSeconds=COUNT,
                resources=exactly("", requests=AMOUNTS, limits=AMOUNTS),
            ),
            headGroupSpec=exactly("rayStartParams template", rayStartParams=TEXTS, template=POD),
            workerGroupSpecs={"type": "array", "items": WORKERS, "minItems": 1},
        ),
    ),
)
"""The fields that kuberay.yaml uses, as KubeRay 1.7's definition of a RayJob has them."""


def test_the_kuberay_file_has_known_fields_of_the_right_types():
    pytest.importorskip("jsonschema").validate(load("kuberay.yaml"), RAY_JOB)


def test_the_schema_of_the_kuberay_file_refuses_what_kubernetes_would():
    jsonschema = pytest.importorskip("jsonschema")
    config = load("kuberay.yaml")
    config["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(config, RAY_JOB)


def test_on_kubernetes_groups_begin_at_none_and_the_head_does_no_work():
    spec = load("kuberay.yaml")["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert all(g["replicas"] == g["minReplicas"] == 0 < g["maxReplicas"] for g in groups.values())
    gpus = {
        name: "nvidia.com/gpu" in g["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name, g in groups.items()
    }
    assert gpus == {"score-spot": True, "train": True, "cpu-spot": False}


def test_every_stage_has_nodes_of_its_label_in_both_files():
    """And the entrypoint of the RayJob names no other."""
    stages = {"index", "score", "train"}
    kinds = load("aws.yaml")["available_node_types"].values()
    assert {kind["labels"]["raygrad"] for kind in kinds if "labels" in kind} == stages
    spec = load("kuberay.yaml")["spec"]
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert {group["labels"]["raygrad"] for group in groups} == stages
    named = dict(re.findall(r"--(\w+)\.nodes raygrad=(\w+)", spec["entrypoint"]))
    assert named == {"data": "index", "train": "train", "score": "score", "sweep": "train"}


def test_nodes_with_decoded_images_have_the_room_for_them_and_the_jobs_name_it():
    """193 GB of ImageNet: a volume that a pod asks for, and an instance's own disk."""
    text = (CLUSTER / "kuberay.yaml").read_text()
    (cache,) = re.findall(r"--data.cache-dir (\S+)", text)
    for group in load("kuberay.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        asked = container["resources"]["requests"]["ephemeral-storage"]
        assert asked.endswith("Gi")
        mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", ())}
        volumes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in pod.get("volumes", ())}
        if group["labels"] == {"raygrad": "train"}:
            size = int(volumes[mounts[cache]].removesuffix("Gi"))
            assert 193e9 < size * 2**30 <= int(asked.removesuffix("Gi")) * 2**30
    options = load("aws.yaml")["docker"]["run_options"]
    assert "-v /opt/dlami/nvme:/mnt/nvme" in options
    assert "--data.cache-dir /mnt/nvme" in (CLUSTER / "README.md").read_text()


def test_every_node_knows_its_region_by_both_names():
    text = " ".join(load("aws.yaml")["docker"]["run_options"])
    region = load("aws.yaml")["provider"]["region"]
    spec = load("kuberay.yaml")["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        assert f"-e {name}={region}" in text
        for pod in pods:
            (container,) = pod["template"]["spec"]["containers"]
            assert {"name": name, "value": region} in container["env"]


def test_no_instance_outlives_a_cluster_that_is_lost():
    """One without a raylet shuts itself down, and one that shuts down is terminated."""
    config = load("aws.yaml")
    (switch,) = [line for line in config["initialization_commands"] if "deadman" in line]
    assert re.search(r"pgrep -x raylet .*; then shutdown -c;.* shutdown -h \+\d+", switch)
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert load("kuberay.yaml")["spec"]["shutdownAfterJobFinishes"] is True


def test_no_node_installs_anything_when_it_starts():
    assert load("aws.yaml")["setup_commands"] == []


def with_fakes(folder, **commands):
    """An environment whose commands are shell lines, each of which notes how it was called."""
    for name, line in commands.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{line}\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def calls_of(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("status", "is_stopped"), [(0, False), (1, False), (2, True), (3, True), (137, False)]
)
def test_statuses_2_and_3_stop_the_job_so_that_kuberay_does_not_repeat_it(
    tmp_path, status, is_stopped
):
    config = {"metadata": {"job_submission_id": "raygrad-1"}}
    environment = with_fakes(tmp_path, ray="exit 0") | {
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(config),
        "RAYGRAD_STOP_S": "0",
    }
    done = subprocess.run(
        ["bash", CLUSTER / "entrypoint.sh", "bash", "-c", f"exit {status}"],
        env=environment,
        capture_output=True,
    )
    assert done.returncode == status
    stop = "ray job stop --address=http://127.0.0.1:8265 --no-wait raygrad-1"
    assert calls_of(tmp_path) == [stop] * is_stopped


def test_the_entrypoint_of_the_rayjob_is_that_of_the_image():
    entrypoint = load("kuberay.yaml")["spec"]["entrypoint"].split()
    assert entrypoint[:3] == ["bash", "/home/ray/app/cluster/entrypoint.sh", "python"]
    assert "cluster/entrypoint.sh" in (CLUSTER / "Dockerfile").read_text()


def test_a_spot_notice_drains_the_node_with_its_deadline(tmp_path):
    """Asked twice in vain, then EC2 says so; IMDSv2's token comes first."""
    seen = f"[ $(grep -c instance-action {tmp_path}/calls) -ge 3 ]"
    curl = f'case "$*" in *instance-action*) {seen};; *) echo token;; esac'
    environment = with_fakes(tmp_path, curl=curl, ray="exit 0", python="echo 0a1b")
    environment["RAY_HEAD_IP"] = "10.0.0.1"
    subprocess.run(
        ["bash", CLUSTER / "drain.sh", "0"], env=environment, check=True, timeout=20,
        capture_output=True,
    )  # fmt: skip
    calls = calls_of(tmp_path)
    assert sum("spot/instance-action" in line for line in calls) == 3
    assert all("X-aws-ec2-metadata-token: token" in line for line in calls if "spot/" in line)
    assert "ray drain-node --address=10.0.0.1:6379 --node-id=0a1b" in calls[-1]
    assert "PREEMPTION" in calls[-1]
    assert "--deadline-remaining-seconds=110" in calls[-1]
    started = load("aws.yaml")["worker_start_ray_commands"][-1]
    assert "drain.sh" in started


def test_the_readme_names_no_file_or_flag_that_is_not_there():
    text = (CLUSTER / "README.md").read_text()
    for name in set(re.findall(r"\bcluster/[\w.-]+\.(?:yaml|sh|txt|md)\b", text)):
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r"\b(?:jobs|benchmarks)/[\w/.-]+\.(?:py|md)\b", text)):
        assert (ROOT / name).exists(), name
