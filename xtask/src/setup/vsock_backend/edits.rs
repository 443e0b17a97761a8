//! Changes that vhost-device-vsock 0.3.0 needs to serve a VM for as long as it runs, whatever its clients and
//! its guest do.

use crate::setup::edit::Edit;

/// All edits, in the order of the program: a client, its packets, the guest's queues.
pub(super) const EDITS: &[Edit] = &[
    Edit {
        why: "a client that leaves before its CONNECT is read wakes the worker forever",
        file: "src/vhu_vsock_thread.rs",
        find: "// Has to be EPOLLIN as it was not connected previously",
        replace: "self.thread_backend.stream_map.remove(&fd);",
    },
    Edit {
        why: "a client that leaves before OK makes the worker panic",
        file: "src/vsock_conn.rs",
        find: "self.stream.write_all(response.as_bytes()).unwrap();",
        replace: "if self.stream.write_all(response.as_bytes()).is_err() {
            self.rx_queue.enqueue(RxOps::Reset);
            return Ok(());
        }",
    },
    Edit {
        why: "a client that leaves before the guest answers keeps its entry forever",
        file: "src/thread_backend.rs",
        find: "if conn.rx_queue.peek() == Some(RxOps::Reset) {",
        replace: "let left = conn.rx_queue.peek() == Some(RxOps::Rw) && !conn.connect;
        if left || conn.rx_queue.peek() == Some(RxOps::Reset) {",
    },
    Edit {
        why: "the guest is never informed of a client that leaves with bytes unread",
        file: "src/vsock_conn.rs",
        find: "if let Ok(read_cnt) = self.stream.read_volatile(&mut buf) {",
        replace: "let read = match self.stream.read_volatile(&mut buf) {
            Err(vm_memory::VolatileMemoryError::IOError(error))
                if error.kind() != ErrorKind::WouldBlock => Ok(0),
            read => read,
        };
        if let Ok(read_cnt) = read {",
    },
    Edit {
        why: "between a guest's reset and its driver's next start, and while the guest is paused, there are \
              no queues: clients that connect then must be rejected, as before the first start, and data of \
              other connections must be delivered when there are queues again",
        file: "src/vhu_vsock.rs",
        find: "let evt_idx = thread.event_idx;",
        replace: "let evt_idx = thread.event_idx;
        use vhost_user_backend::VringT;
        use virtio_queue::QueueT;
        fn ready(vring: &VringRwLock) -> bool {
            vring.get_ref().get_queue().ready()
        }
        if !(ready(vring_rx) && ready(vring_tx)) {
            if device_event == BACKEND_EVENT {
                // The thread takes it for the sign that there is a guest.
                let memory = thread.mem.take();
                thread.process_backend_evt(evset);
                thread.mem = memory;
            }
            if device_event == SIBLING_VM_EVENT {
                let _ = thread.sibling_event_fd.read();
            }
            // No event tells that the queues are back.
            use std::sync::atomic::{AtomicBool, Ordering};
            static WAITING: AtomicBool = AtomicBool::new(false);
            if !WAITING.swap(true, Ordering::SeqCst) {
                let (rx, tx) = (vring_rx.clone(), vring_tx.clone());
                let wake = thread.sibling_event_fd.try_clone()?;
                std::thread::spawn(move || {
                    for _ in 0..6000 {
                        if ready(&rx) && ready(&tx) {
                            break;
                        }
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    WAITING.store(false, Ordering::SeqCst);
                    let _ = wake.write(1);
                });
            }
            return Ok(());
        }",
    },
    Edit {
        why: "this event also stands for pending packets of other guests and of the host",
        file: "src/vhu_vsock.rs",
        find: "thread.process_raw_pkts(vring_rx, evt_idx)?;
                return Ok(());",
        replace: "thread.process_raw_pkts(vring_rx, evt_idx)?;",
    },
    Edit {
        why: "an error ends the worker, and queues may stop at any moment",
        file: "src/vhu_vsock.rs",
        find: "thread.process_tx(vring_tx, evt_idx)?;",
        replace: "thread.process_tx(vring_tx, evt_idx).unwrap_or_else(|error| warn!(\"{error}\"));",
    },
    Edit {
        why: "an error ends the worker",
        file: "src/vhu_vsock.rs",
        find: "_ => return Err(e.into()),",
        replace: "error => warn!(\"{error}\"),",
    },
    Edit {
        why: "an error ends the worker",
        file: "src/vhu_vsock.rs",
        find: "thread.process_rx(vring_rx, evt_idx)?;",
        replace: "thread.process_rx(vring_rx, evt_idx).unwrap_or_else(|error| warn!(\"{error}\"));",
    },
    Edit {
        why: "an error makes the worker panic",
        file: "src/vhu_vsock_thread.rs",
        find: "                    .iter(mem)
                    .unwrap()
                    .go_to_previous_position();",
        replace: "                    .go_to_previous_position();",
    },
    Edit {
        why: "data in flight at a guest's reset is written to the memory of the new guest",
        file: "src/vhu_vsock_thread.rs",
        find: "fn vring_handle_event(event_data: EventData) {",
        replace: "fn vring_handle_event(event_data: EventData) {
        if !virtio_queue::QueueT::ready(event_data.vring.get_ref().get_queue()) {
            return;
        }",
    },
];
