// KVM's API (Documentation/virt/kvm/api.rst): its structures as the kernel has them, and its request numbers, which are
// macros that Swift can't import. What only one architecture has is in that architecture's header.
#pragma once

#include <linux/kvm.h>
#include <stdint.h>

#define MARTLET_KVM(name) static const unsigned long MARTLET_##name = name;
MARTLET_KVM(KVM_GET_API_VERSION)
MARTLET_KVM(KVM_CREATE_VM)
MARTLET_KVM(KVM_CHECK_EXTENSION)
MARTLET_KVM(KVM_GET_VCPU_MMAP_SIZE)
MARTLET_KVM(KVM_CREATE_VCPU)
MARTLET_KVM(KVM_SET_USER_MEMORY_REGION)
MARTLET_KVM(KVM_CREATE_IRQCHIP)
MARTLET_KVM(KVM_IRQFD)
MARTLET_KVM(KVM_IRQ_LINE)
MARTLET_KVM(KVM_IOEVENTFD)
MARTLET_KVM(KVM_RUN)
MARTLET_KVM(KVM_GET_MP_STATE)
MARTLET_KVM(KVM_GET_VCPU_EVENTS)
#if defined(__x86_64__)
#include "x86_kvm.h"
#endif
#undef MARTLET_KVM
