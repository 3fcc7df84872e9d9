"""Raw documents and their chunks."""

from collections.abc import Sequence

import dagster as dg

from assets import metadata
from assets.automation import DOCUMENTS_FRESH
from assets.house import House
from lodestore.addresses import shown
from lodestore.documents import DocumentSource
from lodestore.project import Project
from lodestore.tables import CHUNKS, DOCUMENTS, chunk_table

__all__ = ["corpus_assets"]

GROUP = "corpus"


def corpus_assets(house: House, sources: Sequence[DocumentSource]) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The sources as external assets, the documents read from them, the chunks cut from those."""
    declared = [_source(house, one) for one in sources]
    return [*declared, _documents(house, declared), _chunks(house)]


def _source(house: House, source: DocumentSource) -> dg.AssetSpec:
    return dg.AssetSpec(
        house.key("source", source.name),
        group_name=GROUP,
        kinds={"file"},
        description=f"Documents outside of Lodestore: `{shown(source.uri)}`.",
    )


def _documents(house: House, sources: Sequence[dg.AssetSpec]) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("documents"),
        deps=sources,
        group_name=GROUP,
        kinds={"lancedb", "python"},
        owners=["team:data"],
        freshness_policy=DOCUMENTS_FRESH,
        description="Every raw document, as its source has it now; what disappeared is retired.",
    )
    def documents(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        done = project.pipeline.read_documents()
        counts = project.corpus.figures()
        return dg.MaterializeResult(
            metadata=metadata.figures(
                DOCUMENTS,
                counts["live"],
                sources=metadata.table(done),
                touched=sum(one.touched for one in done),
                retired=counts["retired"],
                rejected=counts["rejected"],
                preview=metadata.preview(project, "documents", ("document_id", "mime", "category", "word_count")),
            )
        )

    return documents


def _chunks(house: House) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("chunks"),
        deps=[house.key("documents")],
        group_name=GROUP,
        kinds={"lancedb", "huggingface"},
        owners=["team:data"],
        description="Pieces of documents that fit the model, cut by its own tokens.",
    )
    def chunks(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        done = project.pipeline.cut_chunks()
        shown = ("chunk_id", "document_id", "ordinal", "n_tokens")
        return dg.MaterializeResult(
            metadata=metadata.figures(
                CHUNKS,
                sum(one.chunks for one in done),
                chunkers=metadata.table(done),
                written=sum(one.written for one in done),
                truncated=sum(one.truncated for one in done),
                tokens=sum(one.tokens for one in done),
                **{
                    f"preview_{one.chunker}": metadata.preview(project, chunk_table(one.chunker), shown) for one in done
                },
            )
        )

    return chunks
