"""Trials on the nodes of a Ray cluster: Ray places, connects and authenticates, nothing else.

    driver (connection.py, executor.py)  --pipe-->  bridge process (bridge.py, node_link.py)
        --actor calls, long polls-->  one actor for each node (host.py)  -->  a process for each job

Only the bridge process and the nodes import Ray: it ends the process of its client when the head of
the cluster is lost, and takes the handlers of signals over. The nodes need no common folders
(node_files.py): data, sources and checkpoints travel.
"""
