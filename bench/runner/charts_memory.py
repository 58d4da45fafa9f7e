"""The memory of many web processes that read one table: shared, and with a copy in each."""

from .charts import INK, MOLT, PLAIN, Chart, blank, colour


def charts(found: dict) -> list[Chart]:
    """What all processes hold together, the worker's own part apart."""
    figure = blank("MB that the table adds, all processes together (proportional set size)", "", height=300)
    ways = [(found[key], side) for key, side in (("copies", PLAIN), ("shared", MOLT)) if found.get(key)]
    shown = [(way["way"], way, side) for way, side in ways]
    figure.add_bar(
        name="all processes", orientation="h", y=[name for name, _, _ in shown],
        x=[way["all_pss_mb"] for _, way, _ in shown], marker_color=[colour(side) for _, _, side in shown],
        text=[f"{way['all_pss_mb']:,.0f} MB, {way['reader_pss_mb']:,.0f} a web process" for _, way, _ in shown],
        textposition="auto", hovertemplate="%{y}: %{x:,.0f} MB", showlegend=False,
    )  # fmt: skip
    table_mb = found["shared"]["table_mb"]
    figure.add_vline(table_mb, line={"color": INK, "dash": "dot"}, annotation_text=f" the table: {table_mb:,.0f} MB",
                     annotation_position="top right")  # fmt: skip
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(type="category", automargin=True)
    figure.update_layout(margin={"t": 40})
    processes = found["shared"]["processes"]
    says = (
        f"{processes} Django processes have each read every byte of a table of {table_mb:,.0f} MB; the growth of all "
        "of them and the "
        "worker is counted, a page that several share once."
    )
    if found.get("scaled_down"):
        says = f"{says} This machine had room for {found['scaled_down']}."
    title = f"Memory of {processes} web processes with the same table"
    return [Chart("memory", title, says, figure, wide=True)]
