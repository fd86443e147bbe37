"""Every setting of a run: its type, its default, its meaning. No default stands elsewhere."""

from selfinstruct_train.config.evaluation import (
    ContaminationConfig,
    EvaluationConfig,
    HarnessConfig,
    JudgeConfig,
)
from selfinstruct_train.config.filters import FilterConfig, PersonalDataKind, ToxicityConfig
from selfinstruct_train.config.generation import (
    ClassificationStep,
    GenerationConfig,
    InstanceStep,
    InstructionStep,
    PassageStep,
    ScoreWeights,
    SeedsConfig,
    SelectConfig,
)
from selfinstruct_train.config.governor import GovernorConfig
from selfinstruct_train.config.load import (
    Config,
    all_keys,
    dump_config,
    flat_settings,
    load_config,
)
from selfinstruct_train.config.model import EngineConfig, ModelConfig
from selfinstruct_train.config.paths import explaining_paths
from selfinstruct_train.config.schema import config_schema
from selfinstruct_train.config.section import Section
from selfinstruct_train.config.steering import AugmentConfig
from selfinstruct_train.config.training import (
    DEFAULT_TRAINING,
    MixConfig,
    PreferenceConfig,
    TrainingConfig,
)

__all__ = [
    "DEFAULT_TRAINING",
    "AugmentConfig",
    "ClassificationStep",
    "Config",
    "ContaminationConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FilterConfig",
    "GenerationConfig",
    "GovernorConfig",
    "HarnessConfig",
    "InstanceStep",
    "InstructionStep",
    "JudgeConfig",
    "MixConfig",
    "ModelConfig",
    "PassageStep",
    "PersonalDataKind",
    "PreferenceConfig",
    "Section",
    "ScoreWeights",
    "SeedsConfig",
    "SelectConfig",
    "ToxicityConfig",
    "TrainingConfig",
    "all_keys",
    "config_schema",
    "dump_config",
    "explaining_paths",
    "flat_settings",
    "load_config",
]
