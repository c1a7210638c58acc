"""Each shipped class fits the Protocol of its place: checked by mypy, never run.

A new component gets a line here. `tests/test_house.py` compares this list with what conf/ names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aipo.benchmarks import (
        AlpacaEval,
        ArenaHard,
        Benchmark,
        Cl100kTokens,
        ConstraintBenchmark,
        EstimatedTokens,
        InstructionFollowing,
        MTBench,
        MTBenchPairwise,
        PolicyTokens,
        PromptBenchmark,
        TextAnnotator,
        WeightedAnnotator,
    )
    from aipo.benchmarks.alpaca_eval import AlpacaEvalAssets, Annotator
    from aipo.benchmarks.arena_hard import ArenaHardAssets
    from aipo.benchmarks.instruction_checks import Instructed
    from aipo.benchmarks.judging import Assets
    from aipo.benchmarks.mt_bench import MTBenchAssets
    from aipo.benchmarks.official import (
        InstructionFile,
        OfficialAlpacaEval,
        OfficialArenaHard,
        OfficialIFBench,
        OfficialMTBench,
    )
    from aipo.benchmarks.token_counters import TokenCounter
    from aipo.data import (
        BestAgainstWorst,
        ConstraintPrompts,
        LengthMatched,
        LocalFiles,
        Mixture,
        RandomPair,
        Selection,
        SentenceEmbedding,
        ShorterOfNearBest,
        Source,
        TfidfEmbedding,
        UltraFeedback,
        UltraFeedbackBinarized,
    )
    from aipo.data.prompt_clusters import Embedding
    from aipo.judges import (
        AzureEndpoint,
        Judge,
        LengthOnlyJudge,
        LocalJudge,
        NoJudge,
        OpenAIEndpoint,
        OpenAIJudge,
        PaidJudge,
        ReplayJudge,
    )
    from aipo.judges.endpoints import Endpoint
    from aipo.judges.scripted import ScriptedJudge
    from aipo.miniature import (
        GoldBenchmark,
        GoldJudge,
        MiniatureAlpacaEval,
        MiniatureArenaHard,
        MiniatureModel,
        MiniatureMTBench,
        MiniatureSource,
        ProxyRanker,
    )
    from aipo.models.policy import BaseModel
    from aipo.pipeline import TensorBoardTracker, TrackioTracker, WandbTracker
    from aipo.pipeline.trackers import Tracker
    from aipo.rankers import (
        LengthOnlyRanker,
        LengthPenalizedRanker,
        LLMJudgeRanker,
        PairRM,
        Ranker,
        RewardModel,
        VerifiableRanker,
    )
    from aipo.rankers.ranker import ComparingRanker, InformedRanker, ReadingRanker
    from aipo.samplers import VLLM, HFSampler, Sampler, ServerSampler, TransformersServe, VLLMServer
    from aipo.samplers.protocols import ServerProtocol
    from aipo.training.processes.preemption import Interruption, Preemption, StopFile

    def models(*each: MiniatureModel) -> Sequence[BaseModel]:
        return each

    def sources(
        *each: ConstraintPrompts | LocalFiles | MiniatureSource | Mixture | UltraFeedback | UltraFeedbackBinarized,
    ) -> Sequence[Source]:
        return each

    def selections(*each: BestAgainstWorst | LengthMatched | RandomPair | ShorterOfNearBest) -> Sequence[Selection]:
        return each

    def embeddings(*each: SentenceEmbedding | TfidfEmbedding) -> Sequence[Embedding]:
        return each

    def samplers(*each: HFSampler | ServerSampler) -> Sequence[Sampler]:
        return each

    def servers(*each: VLLMServer) -> Sequence[VLLMServer]:
        return each

    def server_protocols(*each: TransformersServe | VLLM) -> Sequence[ServerProtocol]:
        return each

    def rankers(
        *each: LengthOnlyRanker
        | LengthPenalizedRanker
        | LLMJudgeRanker
        | PairRM
        | ProxyRanker
        | RewardModel
        | VerifiableRanker,
    ) -> Sequence[Ranker]:
        return each

    def comparing_rankers(*each: PairRM) -> Sequence[ComparingRanker]:
        return each

    def reading_rankers(*each: PairRM | LengthPenalizedRanker | RewardModel) -> Sequence[ReadingRanker]:
        return each

    def informed_rankers(*each: LengthPenalizedRanker | VerifiableRanker) -> Sequence[InformedRanker]:
        return each

    def judges(
        *each: GoldJudge | LengthOnlyJudge | LocalJudge | NoJudge | OpenAIJudge | ReplayJudge | ScriptedJudge,
    ) -> Sequence[Judge]:
        return each

    def paid_judges(*each: OpenAIJudge) -> Sequence[PaidJudge]:
        return each

    def endpoints(*each: AzureEndpoint | OpenAIEndpoint) -> Sequence[Endpoint]:
        return each

    def benchmarks(
        *each: AlpacaEval
        | ArenaHard
        | ConstraintBenchmark
        | GoldBenchmark
        | InstructionFollowing
        | MTBench
        | MTBenchPairwise,
    ) -> Sequence[Benchmark]:
        return each

    def prompt_benchmarks(
        *each: ConstraintBenchmark | GoldBenchmark | InstructionFollowing,
    ) -> Sequence[PromptBenchmark]:
        return each

    def alpaca_eval_assets(*each: MiniatureAlpacaEval | OfficialAlpacaEval) -> Sequence[Assets[AlpacaEvalAssets]]:
        return each

    def arena_hard_assets(*each: MiniatureArenaHard | OfficialArenaHard) -> Sequence[Assets[ArenaHardAssets]]:
        return each

    def instruction_assets(*each: InstructionFile | OfficialIFBench) -> Sequence[Assets[tuple[Instructed, ...]]]:
        return each

    def mt_bench_assets(*each: MiniatureMTBench | OfficialMTBench) -> Sequence[Assets[MTBenchAssets]]:
        return each

    def annotators(*each: TextAnnotator | WeightedAnnotator) -> Sequence[Annotator]:
        return each

    def token_counters(*each: Cl100kTokens | EstimatedTokens | PolicyTokens) -> Sequence[TokenCounter]:
        return each

    def trackers(*each: TensorBoardTracker | TrackioTracker | WandbTracker) -> Sequence[Tracker]:
        return each

    def interruptions(*each: Preemption | StopFile) -> Sequence[Interruption]:
        return each
